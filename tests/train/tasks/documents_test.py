"""Documents as a task: the whole way from texts to metrics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitnet_jax.data.batches import bag_of_words
from bitnet_jax.data.text.tokenizers import Ragged
from bitnet_jax.models.wide_mlp import WideMlp, WideMlpConfig
from bitnet_jax.train.build import build
from bitnet_jax.train.folder.metrics import read_metrics
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.step import make_eval_step, make_train_step
from bitnet_jax.train.tasks.documents import EXAMPLE, BagClassification
from bitnet_jax.train.tasks.facts import DataFacts
from bitnet_jax.train.tasks.losses import LossOptions
from tests.train.conftest import lines_without_time

DOCSTRINGS = {
  "config_name": "docstrings_mlp",
  "data__batch_size": 16,
  "data__vocab_size": 1_000,
  "model__width": 32,
}
CLASSES = 3


@pytest.fixture
def tsv(tmp_path):
  """Returns the settings of a few texts, each class with words of its own."""
  rng = np.random.default_rng(0)
  words = ["red green blue", "one two three", "up down left right and so on"]
  lines = ["kind\ttext"]
  for i in range(60):
    own = rng.choice(words[i % CLASSES].split(), rng.integers(1, 9))
    lines.append(f"{'abc'[i % CLASSES]}\t{' '.join(own)}")
  path = tmp_path / "texts.tsv"
  path.write_text("\n".join(lines) + "\n")
  return {
    **DOCSTRINGS,
    "data__source": f"file:{path}",
    "data__column": "text",
    "data__label": "kind",
    "data__tokenizer": "bytes",
    "data__vocab_size": None,
  }


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["b158", "float"])
def test_docstrings_are_told_apart(run, recipe):
  result, folder = run(
    **DOCSTRINGS,
    quant__recipe=recipe,
    total_steps=320,
    steps_per_dispatch=16,
    eval_every=160,
    checkpoint_every=320,
    statistics_every=0,
  )
  # The largest class is 17 % of the docstrings.
  assert result["metrics"]["test/accuracy"] > 0.5
  assert result["metrics"]["test/macro_f1"] > 0.45
  assert "valid/macro_f1" in read_metrics(folder)[-1] | result["metrics"]
  assert (folder / "tokenizer.json").exists()


@pytest.mark.slow
def test_run_is_the_same_however_its_steps_are_dispatched(
  run, tsv, monkeypatch
):
  # So small that dispatches end where a batch needs more room.
  monkeypatch.setattr(bag_of_words, "_ROUND", 8)
  monkeypatch.setattr(bag_of_words, "_FITTING", 0.5)
  # Cadences that no dispatch is cut short for.
  cadences = {"eval_every": 5, "checkpoint_every": 10}
  settings = tsv | {"quant__recipe": "float"} | cadences
  one, one_folder = run("one", **settings)
  many, many_folder = run("many", steps_per_dispatch=5, **settings)
  assert many["run_id"] == one["run_id"]
  expected, found = map(lines_without_time, (one_folder, many_folder))
  assert len(found) == len(expected) == 12
  for line, other in zip(expected, found, strict=True):
    assert other == pytest.approx(line, rel=1e-4, abs=1e-6)
  assert many["metrics"] == pytest.approx(one["metrics"], rel=1e-4)


def test_batches_of_that_run_need_different_room(make_config, tsv, monkeypatch):
  monkeypatch.setattr(bag_of_words, "_ROUND", 8)
  monkeypatch.setattr(bag_of_words, "_FITTING", 0.5)
  experiment = build(make_config(**tsv))
  rooms = [
    len(experiment.data.train_batch(step)["columns"]) for step in range(12)
  ]
  assert len(set(rooms)) == 2


def test_weights_are_a_mean_or_tfidf(make_config, tsv):
  for weighting, power in (("mean", 1), ("tfidf", 2)):
    config = make_config(**tsv, data__weighting=weighting)
    batch = build(config).data.train_batch(0)
    sums = np.zeros(17)
    np.add.at(sums, batch["segments"], batch["weights"] ** power)
    np.testing.assert_allclose(sums[:16], 1, rtol=1e-5)
    assert sums[16] == 0


def test_special_tokens_frame_each_document(make_config, tsv):
  def pieces(*, special):
    config = make_config(**tsv, data__special_tokens=special)
    batches = build(config).data.eval_batches("train")
    return sum(int((batch["weights"] > 0).sum()) for batch in batches)

  # An evaluation batch has 100 documents, some of which fill it up.
  assert pieces(special=True) == pieces(special=False) + 2 * 100


def small_task(vocab_size):
  cfg = WideMlpConfig(
    width=8,
    dropout=0.0,
    vocab_size=vocab_size,
    num_classes=CLASSES,
    dtype="float32",
    param_dtype="float32",
  )
  facts = DataFacts(example=EXAMPLE, num_classes=CLASSES)
  options = LossOptions(label_smoothing=0.0)
  return BagClassification(WideMlp(cfg, "float"), facts, options)


@pytest.mark.slow
def test_cut_vocabulary_gives_what_the_whole_one_gives():
  rng = np.random.default_rng(0)
  whole = np.arange(50)
  splits = {  # the second holds ids that the first does not
    name: Ragged.of(rng.integers(0, top, size=(24, 6)) * 2)
    for name, top in (("train", 10), ("test", 20))
  }
  cut = bag_of_words.occurring(list(splits.values()))
  assert len(cut) < 25
  labels, tx = rng.integers(CLASSES, size=24), optax.adam(0.1)
  params = nn.unbox(small_task(50).init(jax.random.key(0))["params"])
  losses = {}
  for name, vocabulary in (("whole", whole), ("cut", cut)):
    task = small_task(len(vocabulary))
    found = {
      key: bag_of_words.count_words(ids, labels, vocabulary, name=key)
      for key, ids in splits.items()
    }
    step = jax.jit(make_train_step(task, tx, optax.constant_schedule(0.1)))
    batches = bag_of_words.train_batches(found["train"], batch_size=8, seed=0)
    start = {**params, "embedding": params["embedding"][vocabulary]}
    state = TrainState(jnp.int32(0), start, tx.init(start), {})
    for i in range(6):
      state, _ = step(state, batches(i), jax.random.key(0))
    (batch,) = bag_of_words.eval_batches(found["test"], batch_size=24)
    totals = jax.jit(make_eval_step(task))(state, batch, jax.random.key(0))
    losses[name] = float(totals["loss"])
  assert losses["cut"] == pytest.approx(losses["whole"], rel=1e-5)
  assert losses["cut"] != pytest.approx(24 * np.log(CLASSES), rel=1e-2)


def test_sums_count_each_document_once():
  # Documents 0, 1 and 2 hold the piece 0, 1 and 2; the last one is filling.
  head = {"kernel": jnp.eye(8, CLASSES), "bias": jnp.zeros(CLASSES)}
  params = {"embedding": 50 * jnp.eye(4, 8), "head": head}
  batch = {
    "columns": np.array([0, 1, 2, 2]),
    "segments": np.arange(4),
    "weights": np.ones(4, np.float32),
    "labels": np.array([0, 2, 2, 2]),
    "mask": np.array([1, 1, 1, 0], np.float32),
  }
  state = TrainState(jnp.int32(0), params, None, {})
  step = jax.jit(make_eval_step(small_task(4)))
  totals = step(state, batch, jax.random.key(0))
  assert totals["confusion"].tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
  assert float(totals["accuracy"]) == 2
  assert float(totals["weight"]) == 3
  assert float(totals["loss"]) == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"data__weighting": "sum"}, "data.weighting is 'sum'"),
    ({"data__split_seed": -1}, "data.split_seed is -1"),
    ({"task__label_smoothing": 1.5}, "task.label_smoothing is 1.5"),
    ({"optim__accumulate_steps": 2}, "optim.accumulate_steps is 2"),
    ({"data__source": "file:nowhere.txt"}, r"file:nowhere.txt.*PATH\.tsv"),
    ({"model__name": "mlp"}, "model.name is 'mlp'"),
    ({"data__tokenizer": "words"}, "unknown tokenizer 'words'"),
  ],
)
def test_bad_options_are_named(make_config, tsv, changes, message):
  with pytest.raises(ValueError, match=message):
    build(make_config(**tsv | changes))


def test_text_without_a_token_is_named(make_config, tsv, tmp_path):
  path = tmp_path / "texts.tsv"
  path.write_text(path.read_text() + "a\t\n")
  with pytest.raises(ValueError, match="line 62: text is empty"):
    build(make_config(**tsv))
