"""Attention to cached keys, by the kernel."""

import jax
import numpy as np
import pytest

from bitnet_jax.ops.cpu import kernels

pytestmark = pytest.mark.usefixtures("compiled")
LAYER = 1


def drawn(b, heads, groups, places, size):
  """Operands; no other layer has numbers, nor has what nobody sees."""
  rng = np.random.default_rng(places)
  query = rng.normal(size=(b, heads, groups, size))
  keys, values = rng.normal(size=(2, 3, b, heads, places, size))
  mask = rng.random((b, places)) < 0.7
  mask[:, -1] = False
  mask[0, 0] = True
  for array in (keys, values):
    array[[0, 2]] = np.nan
  floats = (a.astype(np.float32) for a in (query, keys, values))
  return *floats, np.int32(LAYER), mask


def expected(query, keys, values, layer, mask):
  keys, values = (a[layer].astype(np.float64) for a in (keys, values))
  scores = np.einsum("bngk,bnsk->bngs", query, keys) / query.shape[-1] ** 0.5
  scores = np.where(mask[:, None, None], scores, -1e300)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  return np.einsum("bngs,bnsk->bngk", weights, values)


# Heads of whole and of partial registers, and wider than a sum.
@pytest.mark.parametrize(
  "shape",
  [
    (1, 1, 1, 2, 1),
    (2, 3, 2, 37, 20),
    (1, 2, 4, 300, 64),
    (3, 1, 1, 16, 130),
    (1, 2, 1, 700, 256),
  ],
)
def test_it_is_that_of_float64(shape):
  operands = drawn(*shape)
  found = jax.jit(kernels.attend_cached)(*operands)
  np.testing.assert_allclose(found, expected(*operands), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("size", [1e-30, 30.0, 1e4])
def test_it_is_stable_for_scores_of_any_size(size):
  query, *others = drawn(2, 2, 2, 40, 32)
  operands = np.float32(size) * query, *others
  found = jax.jit(kernels.attend_cached)(*operands)
  np.testing.assert_allclose(found, expected(*operands), rtol=1e-4, atol=1e-5)


def test_nobody_seen_is_the_average_of_all():
  query, keys, values, layer, mask = drawn(2, 2, 1, 9, 8)
  mask[1] = False
  operands = query, keys, values, layer, mask
  found = jax.jit(kernels.attend_cached)(*operands)
  np.testing.assert_allclose(found, expected(*operands), rtol=2e-5, atol=2e-6)
  average = values[LAYER, 1].mean(1, keepdims=True)
  np.testing.assert_allclose(found[1], average, rtol=1e-5, atol=1e-6)


def test_what_comes_after_the_last_seen_is_not_read():
  query, keys, values, layer, mask = drawn(1, 2, 2, 64, 16)
  mask[:, 40:] = False
  run = jax.jit(kernels.attend_cached)
  before = run(query, keys, values, layer, mask)
  keys[..., 40:, :] = values[..., 40:, :] = np.nan
  np.testing.assert_array_equal(run(query, keys, values, layer, mask), before)


def test_a_row_does_not_depend_on_others():
  query, keys, values, layer, mask = drawn(3, 2, 2, 50, 24)
  together = jax.jit(kernels.attend_cached)(query, keys, values, layer, mask)
  for i in range(3):
    one = slice(i, i + 1)
    alone = jax.jit(kernels.attend_cached)(
      query[one], keys[:, one], values[:, one], layer, mask[one]
    )
    np.testing.assert_array_equal(alone, together[one])


def test_what_is_not_finite_stays_so():
  query, keys, values, layer, mask = drawn(1, 1, 1, 20, 8)
  values[LAYER, 0, 0, np.flatnonzero(mask[0])[0]] = np.nan
  found = jax.jit(kernels.attend_cached)(query, keys, values, layer, mask)
  assert np.isnan(found).all()


def test_it_runs_under_vmap():
  operands = [drawn(1, 2, 2, 21, 8) for _ in range(2)]
  stacked = jax.tree.map(lambda *own: np.stack(own), *operands)
  found = jax.jit(jax.vmap(kernels.attend_cached))(*stacked)
  for y, own in zip(found, operands, strict=True):
    np.testing.assert_allclose(y, expected(*own), rtol=2e-5, atol=2e-6)
