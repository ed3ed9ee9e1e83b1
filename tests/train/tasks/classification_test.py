"""How a batch becomes a loss and metrics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.train.build import build
from bitnet_jax.train.tasks.base import averages
from bitnet_jax.train.tasks.classification import Classification
from bitnet_jax.train.tasks.facts import DataFacts
from bitnet_jax.train.tasks.losses import LossOptions

# Losses are computed in float32.
FLOAT32 = 1e-6


class Passing(nn.Module):
  """Logits are the inputs; tells what it was called with."""

  dtype: object = jnp.float32

  @nn.compact
  def __call__(self, x, *, deterministic, strength):
    count = self.variable("state", "calls", lambda: jnp.zeros(()))
    if not deterministic:
      count.value += 1
    x = nn.Dropout(0.5, deterministic=deterministic)(x)
    return (x if strength is None else x * strength).astype(self.dtype)


def make_task(dtype=jnp.float32, mean=0.0, std=1.0):
  facts = DataFacts(mean=(mean,), std=(std,))
  return Classification(Passing(dtype), facts, LossOptions(label_smoothing=0.0))


LOGITS = np.array([[2, 0, 0], [0, 1, 0], [0, 0, 3], [1, 0, 0]], np.float32)
LABELS = np.array([0, 0, 2, 2], np.int32)


def totals_of(task, batch, *, deterministic=True, strength=None):
  batch = jax.tree.map(jnp.asarray, batch)
  return task.totals(
    {},
    {"state": {"calls": jnp.zeros(())}},
    batch,
    key=jax.random.key(0),
    deterministic=deterministic,
    strength=strength,
  )


def losses(logits):
  exp = np.exp(logits.astype(np.float64))
  return -np.log((exp / exp.sum(-1, keepdims=True))[range(4), LABELS])


@pytest.mark.parametrize("mask", [None, [1, 1, 0, 1], [0, 0, 0, 1]])
def test_totals_are_sums_over_what_is_not_masked(mask):
  batch = {"inputs": LOGITS, "labels": LABELS}
  counted = np.ones(4)
  if mask is not None:
    counted = np.array(mask, np.float64)
    batch["mask"] = counted.astype(np.float32)
  task = make_task()
  totals, _ = totals_of(task, batch)
  np.testing.assert_allclose(
    totals["loss"], (losses(LOGITS) * counted).sum(), FLOAT32
  )
  assert totals["accuracy"] == (np.array([1, 0, 1, 0]) * counted).sum()
  assert totals["weight"] == counted.sum()
  assert task.weight(jax.tree.map(jnp.asarray, batch)) == counted.sum()


def test_inputs_are_standardized_in_float32():
  batch = {"inputs": (LOGITS * 10 + 5).astype(np.uint8), "labels": LABELS}
  totals, _ = totals_of(make_task(mean=5.0, std=10.0), batch)
  np.testing.assert_allclose(totals["loss"], losses(LOGITS).sum(), FLOAT32)


def test_loss_is_float32_whatever_the_dtype_of_the_model():
  batch = {"inputs": LOGITS, "labels": LABELS}
  totals, _ = totals_of(make_task(jnp.bfloat16), batch)
  assert totals["loss"].dtype == jnp.float32
  # Small integers are exact in bfloat16, so that only the loss could differ.
  np.testing.assert_allclose(totals["loss"], losses(LOGITS).sum(), FLOAT32)


def test_strength_reaches_the_model():
  batch = {"inputs": LOGITS, "labels": LABELS}
  totals, _ = totals_of(make_task(), batch, strength=jnp.float32(0.5))
  np.testing.assert_allclose(totals["loss"], losses(LOGITS / 2).sum(), FLOAT32)


def test_only_training_drops_out_and_changes_variables():
  batch = {"inputs": LOGITS, "labels": LABELS}
  evaluated, variables = totals_of(make_task(), batch)
  assert variables["state"]["calls"] == 0
  trained, variables = totals_of(make_task(), batch, deterministic=False)
  assert variables["state"]["calls"] == 1
  assert trained["loss"] != evaluated["loss"]


def test_averages_divide_by_the_weight():
  totals = {"loss": 6.0, "accuracy": 3.0, "weight": 4.0}
  assert averages(totals) == {"loss": 1.5, "accuracy": 0.75}


def write_images(path, **outliers):
  """Writes images with classes 1 to 3; a value for the first of a split."""
  rng = np.random.default_rng(0)
  members = {}
  for split, count in (("train", 30), ("valid", 12), ("test", 12)):
    x = rng.random((count, 4, 4, 1)).astype(np.float32)
    if split in outliers:
      x[0, 0, 0] = outliers[split]
    members |= {f"x_{split}": x, f"y_{split}": np.arange(count) % 3 + 1}
  np.savez(path, **members)
  return {"data__source": f"file:{path}", "data__num_classes": None}


@pytest.mark.parametrize(
  ("split", "message"),
  [
    (
      "train",
      r"train: example 0 has the value 3\S+ in channel 0, where nearly",
    ),
    (
      "valid",
      r"valid: example 0 has the value 3\S+ in channel 0, which is not",
    ),
  ],
)
def test_pixel_that_spoils_standardization_is_named(
  split, message, make_config, tmp_path
):
  config = make_config(**write_images(tmp_path / "x.npz", **{split: 3e38}))
  with pytest.raises(ValueError, match=f"x.npz: {message}"):
    build(config)


def test_odd_data_are_told_of(make_config, tmp_path, caplog):
  options = write_images(tmp_path / "x.npz")
  build(make_config(**options, data__batch_size=30))
  source = options["data__source"]
  assert (
    f"{source}: 1 of 4 classes never occur in train: 0; labels begin at 1, but"
    " classes are numbered from 0"
  ) in caplog.messages
  assert "data.batch_size" not in caplog.text
  build(make_config(**options | {"data__num_classes": 10}))
  assert {*caplog.messages} >= {
    f"{source}: 7 of 10 classes never occur in train: 0, 4, 5, 6, 7, 8, 9;"
    " labels begin at 1, but classes are numbered from 0",
    f"data.batch_size is 32, more than the 30 training examples of {source}: a"
    " batch repeats examples, or has padding",
  }


def test_train_examples_limits_the_training_split_alone(make_config, tmp_path):
  options = write_images(tmp_path / "x.npz")
  sizes = [
    {n: s.examples for n, s in build(config).data.facts.splits.items()}
    for config in (
      make_config(**options),
      make_config(**options, data__train_examples=12),
    )
  ]
  assert sizes == [
    {"train": 30, "valid": 12, "test": 12},
    {"train": 12, "valid": 12, "test": 12},
  ]
