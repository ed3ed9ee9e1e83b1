"""What the data decided, beside the config of a run."""

import dataclasses
import json

import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder import data_facts, workdir
from bitnet_jax.train.folder.lock import Lock
from bitnet_jax.train.tasks.facts import ArraySpec, DataFacts, SplitFacts
from tests.train import tiny

FACTS = DataFacts(
  fingerprint="sha256:1",
  splits={"train": SplitFacts(examples=9), "valid": SplitFacts(examples=3)},
  example={"inputs": ArraySpec(shape=(1, 4), dtype="float32")},
  num_classes=3,
  class_names=("a", "b", "é"),
  mean=(0.1, -1e-9),
  std=(1.0, 2.5),
)
CONFIG = {"total_steps": 1, "seed": 1, "task": {"name": "a"}, "data": {}}


def claim(folder, facts=FACTS, **changes):
  data_facts.claim(folder, dataclasses.replace(facts, **changes), None, None)


def test_facts_are_written_and_read_back(tmp_path):
  assert data_facts.read(tmp_path) is None
  claim(tmp_path)
  assert data_facts.read(tmp_path) == (FACTS, None)
  before = (tmp_path / "data_facts.json").read_bytes()
  claim(tmp_path)
  # Sums in another order are no other data.
  claim(tmp_path, mean=(0.1000001, 1e-9), std=(1.0, 2.500001))
  assert (tmp_path / "data_facts.json").read_bytes() == before


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_classes": 4}, "num_classes: 3 there, 4 now"),
    ({"fingerprint": "sha256:2"}, "fingerprint: 'sha256:1' there, 'sha256:2'"),
    ({"std": (1.0, 2.6)}, r"std: \[1.0, 2.5\] there, \[1.0, 2.6\] now"),
    ({"mean": (), "std": ()}, r"mean: \[0.1, -1e-09\] there, \[\] now"),
    (
      {"example": {"inputs": ArraySpec(shape=(1, 5), dtype="float32")}},
      r"example.inputs.shape: \[1, 4\] there, \[1, 5\] now",
    ),
    (
      {"splits": {"train": SplitFacts(examples=9)}},
      "splits.valid is gone",
    ),
  ],
)
def test_other_facts_are_refused_by_key_and_values(tmp_path, changes, message):
  claim(tmp_path)
  before = (tmp_path / "data_facts.json").read_bytes()
  with pytest.raises(
    workdir.WorkdirError, match=rf"data_facts.json is of other data.*{message}"
  ):
    claim(tmp_path, **changes)
  assert (tmp_path / "data_facts.json").read_bytes() == before


def test_padding_of_a_graph_follows_the_devices(tmp_path):
  def example(nodes, features=3):
    shapes = {"nodes": (1, nodes, features), "senders": (1, 2 * nodes)}
    return {n: ArraySpec(shape=s, dtype="int32") for n, s in shapes.items()}

  claim(tmp_path, example=example(34))
  claim(tmp_path, example=example(40))
  with pytest.raises(workdir.WorkdirError, match=r"nodes.shape: \[3\] there"):
    claim(tmp_path, example=example(34, features=4))


def test_what_an_older_file_lacks_is_added(tmp_path):
  claim(tmp_path)
  path = tmp_path / "data_facts.json"
  content = json.loads(path.read_text()) | {"class_names": []}
  del content["features"], content["bag"]
  path.write_text(json.dumps(content))
  claim(tmp_path, features=("x", "y"))
  expected = dataclasses.replace(FACTS, features=("x", "y"))
  assert data_facts.read(tmp_path) == (expected, None)
  with pytest.raises(workdir.WorkdirError, match=r"class_names: \['a', 'b'"):
    claim(tmp_path, class_names=("a", "b", "c"))


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "Expecting value"),
    ("[]", "it holds no object"),
    ('{"vocabulary": 3}', "vocabulary is 3; it must be an object or null"),
    ("{}", "vocabulary is 'missing'; it must be an object or null"),
    ('{"vocabulary": null}', "fingerprint is missing"),
  ],
)
def test_damaged_file_is_named(tmp_path, text, message):
  (tmp_path / "data_facts.json").write_text(text)
  with pytest.raises(
    workdir.WorkdirError, match=rf"data_facts.json is damaged.*{message}"
  ):
    data_facts.read(tmp_path)


def test_other_vocabulary_than_the_facts_name_is_refused(tmp_path):
  tokenizer = load_tokenizer("bytes", texts=tuple)
  entry = {
    "kind": "bytes",
    "vocab_size": None,
    "num_sentinels": 0,
    "lowercase": None,
    "needs": [],
    "fingerprint": tokenizer.fingerprint,
  }
  recorded = data_facts.Recorded(FACTS, entry)
  with pytest.raises(ValueError, match=r"data_facts.json is damaged: finger"):
    data_facts.read_tokenizer(tmp_path, recorded)


def test_start_that_fails_takes_the_file_back(tmp_path):
  with Lock(tmp_path):
    workdir.claim(tmp_path, CONFIG, "print")
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 0.1}\n')
  for is_there in (False, True):
    if is_there:
      claim(tmp_path)
    with pytest.raises(OSError, match="a fault"), Lock(tmp_path):
      claim(tmp_path)
      raise OSError("a fault")
    assert (tmp_path / "data_facts.json").exists() == is_there


def test_start_that_was_killed_before_a_step_refuses_nothing(tmp_path):
  workdir.claim(tmp_path, CONFIG, "other")
  claim(tmp_path, fingerprint="other")
  (tmp_path / "vocabulary_tokenizer.json").touch()
  (tmp_path / "tokenizer.json").write_text("mine")
  with Lock(tmp_path):
    workdir.claim(tmp_path, CONFIG | {"seed": 2}, "print")
    claim(tmp_path)
  left = {path.name for path in tmp_path.iterdir()}
  assert left == {".lock", "config.json", "data_facts.json", "tokenizer.json"}


@pytest.mark.slow
def test_vocabulary_of_a_file_is_recorded_with_the_run(tmp_path):
  source = tiny.write(tmp_path / "texts.txt", ["the cat sat", "a dog"] * 20)
  texts = (tmp_path / "texts.txt").read_text().splitlines()
  load_tokenizer("bpe", texts=lambda: texts, vocab_size=290, cache=tmp_path)
  config = tiny.make(
    "decoder",
    source,
    data__tokenizer=f"tokenizers:{tmp_path / 'tokenizer.json'}",
    mesh__data=1,
    total_steps=1,
  )
  folder = tmp_path / "run"
  runner.run(config, folder)
  own = build(config, folder).data.tokenizer
  (tmp_path / "tokenizer.json").unlink()
  (tmp_path / "texts.txt").unlink()
  content = json.loads((folder / "data_facts.json").read_text())
  assert content["vocabulary"]["fingerprint"] == own.fingerprint
  recorded = data_facts.read(folder)
  found = data_facts.read_tokenizer(folder, recorded)
  assert found.fingerprint == own.fingerprint
  assert found.encode("the dog").tolist() == own.encode("the dog").tolist()
  (folder / "vocabulary_tokenizer.json").unlink()
  with pytest.raises(FileNotFoundError, match=r"vocabulary_tokenizer\.json"):
    data_facts.read_tokenizer(folder, recorded)
