"""Sums over a split, whose last batch is filled up."""

import jax
import numpy as np
import pytest

from bitnet_jax.data.batches import order
from bitnet_jax.data.batches.images import Arrays
from bitnet_jax.data.splits import Split
from bitnet_jax.train.devices.mesh import make_mesh
from bitnet_jax.train.evaluate import evaluate

# Sums of float32 in another order.
REORDERED = 1e-6


@pytest.mark.parametrize("batch_size", [1, 3, 10, 16])
def test_each_example_counts_once(batch_size):
  values = np.arange(10, dtype=np.float32) ** 2
  split = Split(inputs=values[:, None], labels=np.zeros(10, np.int32))
  sizes = []

  def eval_step(state, batch, key, strength):
    assert (state, strength) == ("state", "strength")
    sizes.append(batch["inputs"].shape[0])
    mask = batch["mask"]
    return {
      "loss": (batch["inputs"][:, 0] * mask).sum(),
      "weight": mask.sum(),
    }

  sums = evaluate(
    eval_step,
    "state",
    order.eval_batches(Arrays(split=split), batch_size=batch_size),
    mesh=make_mesh(data=1, fsdp=1, tensor=1),
    key=jax.random.key(0),
    strength="strength",
  )
  assert sorted(sums) == ["loss", "weight"]
  assert sums["weight"] == 10
  np.testing.assert_allclose(sums["loss"], values.sum(), REORDERED)
  assert set(sizes) == {batch_size}  # So that it is compiled once.
