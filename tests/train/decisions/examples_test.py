"""Splits, classes, batch sizes and vocabularies follow from the data."""

import numpy as np
import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.config.settings import RunContext
from bitnet_jax.train.decisions import examples
from bitnet_jax.train.decisions.decisions import Decisions
from tests.train.decisions.conftest import load, sentences


def decisions_of(name="images", shards=1, **overrides):
  config = load(name, data__source="file:a.npz", **overrides)
  return Decisions(config, RunContext(shards=shards))


def fractions(splits, **options):
  found = decisions_of()
  examples.decide_cuts(found, splits, **options)
  return found.given("data.valid_fraction"), found.given("data.test_fraction")


def test_fractions_suit_what_is_there():
  train = {"train": range(1000)}
  assert fractions(train) == (0.1, 0.1)
  assert fractions(train | {"test": [1]}) == (0.1, 0.0)
  assert fractions(train | {"valid": [1]}) == (0.0, 0.0)
  assert fractions(train | {"valid": [1], "test": [1]}) == (0.0, 0.0)


def test_small_data_hold_more_out_for_validation():
  assert fractions({"train": range(20)}) == (0.2, 0.0)
  assert fractions({"train": range(200)}, num_classes=30) == (0.2, 0.1)
  assert fractions({"train": range(5)}) == (0.3, 0.0)
  assert fractions({"train": range(2)}) == (0.5, 0.0)
  with pytest.raises(ValueError, match="1 training example; there must be two"):
    fractions({"train": range(1)})


def test_batches_suit_examples_and_devices():
  def batch(n, **options):
    found = decisions_of(**options)
    examples.decide_batch_size(found, n)
    return found.given("data.batch_size")

  assert [batch(n) for n in (1, 4, 16, 100, 10**6)] == [1, 1, 4, 16, 32]
  assert [batch(n, shards=6) for n in (1, 100, 10**6)] == [6, 12, 30]
  assert batch(100, optim__accumulate_steps=8) == 16
  assert batch(10**6, budget="L") == 128


@pytest.mark.parametrize(("count", "ends"), [(2, True), (30, False)])
def test_a_few_documents_are_all_cut_at_their_ends(ask, tmp_path, count, ends):
  for i in range(count):
    text = "\n".join(f"{i} {line}" for line in sentences(60))
    (tmp_path / f"{i}.txt").write_text(text)
  found = ask("lm", f"file:{tmp_path}", total_steps=10, data__tokenizer="bytes")
  decided = found.config["data"]
  assert decided["hold_out"] == ("ends" if ends else "documents")
  assert ("data.hold_out" in found.config["decided"]) == ends
  sizes = {n: s.bytes for n, s in found.data.facts.splits.items()}
  part = (0.1 if ends else 0.2) * (sizes["train"] + sizes["valid"])
  assert sizes["valid"] == pytest.approx(part, rel=0.1)


def test_classes_are_checked():
  def check(labels, **overrides):
    found = decisions_of(**overrides)
    examples.check_classes(found, np.array(labels), ("cat", "dog", "owl"))

  check([0, 0, 1, 1])
  with pytest.raises(ValueError, match=r"only class is 'cat'; .* two at least"):
    check([0, 0])
  with pytest.raises(ValueError, match="one example only of 'owl': "):
    check([0, 0, 1, 1, 2])
  check([0, 0, 1, 1, 2], data__valid_fraction=0.0)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("images", r"data.source is not set; .*file:PATH.npz.*your-data.md"),
    ("nodes", r"data.source is not set; .*embedded:karate"),
  ],
)
def test_missing_source_lists_the_kinds(name, message):
  with pytest.raises(ValueError, match=message):
    build(load(name))


def test_source_of_another_task_names_the_config(ask, tmp_path):
  with pytest.raises(ValueError, match=r"no source of arrays .*--config=lm"):
    ask("images", "file:book.txt")
  with pytest.raises(ValueError, match=r"labeled texts .*--config=images"):
    ask("texts", f"folder:{tmp_path}")
  with pytest.raises(ValueError, match="unknown source of arrays 'nonsense'"):
    ask("images", "nonsense")


def test_table_of_numbers_is_not_for_a_model_of_pictures(ask, pictures):
  source = pictures([0, 1] * 20, shape=(5,))
  with pytest.raises(ValueError, match=r"'cnn', for pictures; use .*=features"):
    ask("images", source)
  assert ask("features", source).task.facts.num_classes == 2


def rows_of(labels):
  rows = zip(sentences(len(labels)), labels, strict=True)
  return [("text", "label"), *rows]


@pytest.mark.parametrize(
  ("labels", "regression"),
  [
    (["yes", "no"] * 20, False),
    ([0, 1, 2, 3] * 10, False),
    ([f"{i / 4:.2f}" for i in range(40)], True),
    ([*range(40)], True),
    ([*range(10)] * 4, False),
  ],
)
def test_labels_are_classes_or_numbers(ask, table, labels, regression):
  experiment = ask("texts", table(rows_of(labels)))
  assert experiment.config["task"]["regression"] is regression
  metric = "valid/pearson" if regression else "valid/accuracy"
  assert experiment.config["checkpoint"]["metric"] == metric


def test_labels_without_a_lesson_are_refused(ask, table):
  with pytest.raises(ValueError, match=r"\(label\) are all 2.5; .*nothing"):
    ask("texts", table(rows_of(["2.5"] * 20)))
  with pytest.raises(ValueError, match="only class is 'same'"):
    ask("texts", table(rows_of(["same"] * 20)))
  with pytest.raises(ValueError, match=r"task.regression|finite number.*'yes'"):
    ask("texts", table(rows_of(["yes", "no"] * 9)), task__regression=True)


def test_vocabulary_and_length_suit_the_texts(ask, table):
  few = ask("texts", table(rows_of(["a", "b"] * 10))).config["data"]
  assert few["tokenizer"] == "bytes" and few["vocab_size"] is None
  source = table(rows_of(["a", "b"] * 200))
  many = ask("texts", source).config["data"]
  assert many["tokenizer"] == "wordpiece" and many["vocab_size"] == 512
  assert many["seq_len"] % 8 == 0 and many["seq_len"] < few["seq_len"]
  given = ask("texts", source, data__tokenizer="bpe").config["data"]
  assert given["tokenizer"] == "bpe" and given["vocab_size"] == 512
  short = ask("texts", source, model__max_length=8).config
  assert short["data"]["seq_len"] == 8
  assert "model.max_length is 8" in short["decided"]["data.seq_len"]


@pytest.fixture(scope="module")
def run_of_texts(tmp_path_factory):
  """Returns the folder of a run of one step, and its source."""
  folder = tmp_path_factory.mktemp("texts")
  lines = ["\t".join(row) for row in rows_of(["a", "b"] * 200)]
  (folder / "rows.tsv").write_text("\n".join(lines) + "\n")
  source = f"file:{folder / 'rows.tsv'}"
  small = {"model.hidden": 8, "model.num_heads": 1, "model.num_kv_heads": 1}
  small = {k.replace(".", "__"): v for k, v in small.items()}
  config = load("texts", data__source=source, total_steps=1, **small)
  runner.run(config, folder / "run")
  return folder / "run", source


@pytest.mark.slow
@pytest.mark.parametrize("key", ["init_from", "distill.teacher"])
def test_run_that_starts_from_another_takes_its_vocabulary(
  run_of_texts, ask, table, key
):
  folder, source = run_of_texts
  config = ask("texts", source, **{key.replace(".", "__"): str(folder)}).config
  assert config["data"]["tokenizer"] == f"tokenizers:{folder}/tokenizer.json"
  assert config["data"]["vocab_size"] is None
