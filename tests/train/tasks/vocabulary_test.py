"""What one run has learned is the start of another, of before too."""

import json

import pytest

from bitnet_jax.data.splits import Cuts
from bitnet_jax.data.text.tokenizers import ROLES, load_tokenizer
from bitnet_jax.data.views import documents
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder import workdir
from bitnet_jax.train.folder.checkpoint import Checkpoints, Progress
from tests.train import tiny

LINES = [f"he said {'ab'[i % 2]} {i % 7}" for i in range(40)]
WORDS = ["[PAD]", "[UNK]", "he", "said", "a", "b", *map(str, range(7))]


def load(spec, **options):
  return load_tokenizer(spec, texts=list, **options)


@pytest.fixture
def spec(tmp_path):
  """A vocabulary without most of the special tokens."""
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(WORDS))
  return f"bert:{path}"


@pytest.fixture(autouse=True)
def _stubs(monkeypatch):
  tiny.use_stubs(monkeypatch)


def test_vocabulary_of_another_run_is_found(spec):
  whole = load(spec, needs=ROLES)
  assert whole.vocab_size == len(WORDS) + 5
  for options in (
    {},
    dict(needs=("bos",)),
    dict(needs=("mask", "cls", "sep")),
    dict(needs=ROLES),
    dict(needs=ROLES, num_sentinels=3),
  ):
    other = load(spec, **options)
    found = load(spec, needs=ROLES, known={other.fingerprint, "sha256:0"})
    assert found.fingerprint == other.fingerprint
    assert found.vocab_size == other.vocab_size
    assert found.sentinels == other.sentinels
  unknown = load(spec, needs=ROLES, known={"sha256:0"})
  assert unknown.fingerprint == whole.fingerprint
  # There is room for what the other run had, not for every role.
  plain = load(spec)
  found = load(
    spec, needs=ROLES, known={plain.fingerprint}, vocab_size=plain.vocab_size
  )
  assert found.eos_id is None


def config_of(name, folder, spec, **options):
  """The config of a task on a vocabulary that lacks special tokens."""
  rows = [f"{line}\t{i % 2}" for i, line in enumerate(LINES)]
  for language in ("en", "de"):
    tiny.write(folder / f"pairs.{language}", LINES)
  source = {
    "classification": lambda: tiny.write(
      folder / "rows.tsv", ["text\tlabel", *rows]
    ),
    "translation": lambda: f"file:{folder}/pairs.{{lang}}",
  }.get(name, lambda: tiny.write(folder / "lines.txt", LINES))()
  return tiny.make(name, source, data__tokenizer=spec, **options)


def finish(config, folder, fingerprint=None):
  """Leaves what another run looks at: a config and a checkpoint."""
  folder.mkdir()
  built = build(config, folder)
  workdir.claim(folder, built.config, fingerprint or built.fingerprint)
  kept = Checkpoints.of_run(folder, built.settings.checkpoint)
  with built.activate():
    kept.save(2, built.init(), progress=Progress(), metrics={})
    kept.wait()
  return built


@pytest.mark.parametrize(
  ("first", "then"),
  [
    ("encoder", "classification"),
    ("encoder_decoder", "translation"),
    ("decoder", "decoder"),
  ],
)
def test_one_task_goes_on_to_another(tmp_path, spec, first, then):
  earlier = finish(config_of(first, tmp_path, spec), tmp_path / "earlier")
  config = config_of(then, tmp_path, spec, init_from=str(tmp_path / "earlier"))
  built = build(config, tmp_path / "later")
  one, other = (e.data.tokenizer for e in (earlier, built))
  assert one.fingerprint == other.fingerprint
  assert one.vocab_size == other.vocab_size
  for role in ROLES:
    assert getattr(one, f"{role}_id") == getattr(other, f"{role}_id") != None  # noqa: E711


def test_run_of_before_keeps_its_vocabulary(tmp_path, spec):
  folder, config = tmp_path / "run", config_of("decoder", tmp_path, spec)
  before = load(spec, needs=("eos",))
  today = build(config)
  assert before.vocab_size < today.data.tokenizer.vocab_size
  name = today.data.tokenizer.fingerprint
  recorded = today.fingerprint.replace(name, before.fingerprint)
  finish(config, folder, recorded)
  for built in (build(config, folder), runner.load_experiment(folder)):
    assert built.fingerprint == recorded
    assert built.data.tokenizer.vocab_size == before.vocab_size
  # So does a run that starts with its parameters.
  later = build({**config, "init_from": str(folder)}, tmp_path / "later")
  assert later.data.tokenizer.fingerprint == before.fingerprint
  # And one that was built beside it has every role.
  assert build(config, tmp_path / "other").fingerprint == today.fingerprint


@pytest.mark.parametrize("lines", [LINES, ["a", "", *LINES]], ids=len)
def test_run_of_before_keeps_its_documents(tmp_path, lines):
  source = tiny.write(tmp_path / "a.txt", lines)
  config = tiny.make(
    "decoder", source, data__documents=None, data__skip_empty=True
  )
  folder, today = tmp_path / "run", build(config)
  corpus = documents.load(
    source,
    Cuts(**{k: config["data"][k] for k in ("valid_fraction", "test_fraction")}),
    documents="lines",
    skip_empty=True,
  )
  content = today.fingerprint.partition(" vocabulary ")[0]
  recorded = today.fingerprint.replace(content, corpus.fingerprint)
  assert recorded != today.fingerprint
  finish(config, folder, recorded)
  for built in (build(config, folder), runner.load_experiment(folder)):
    assert built.fingerprint == recorded
  # What the folder says is not believed, but compared.
  changed = json.loads((folder / "config.json").read_text())
  changed["data_fingerprint"] = recorded.replace("sha256:", "sha256:0", 1)
  (folder / "config.json").write_text(json.dumps(changed))
  assert build(config, folder).fingerprint == today.fingerprint
