"""The kernel of packed products on TPU, interpreted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, QTensor, backend
from bitnet_jax.ops import bit_dot, pack
from bitnet_jax.ops.tpu.packed_dot import MOST_ROWS, packed_dot, suits
from tests.jaxprs import equations


@pytest.mark.parametrize(
  ("rows", "k", "n"),
  [
    (1, 512, 128),
    pytest.param(33, 1536, 384, marks=pytest.mark.slow),
    pytest.param(130, 512, 640, marks=pytest.mark.slow),
  ],
)
def test_products_are_exact(rows, k, n):
  rng = np.random.default_rng(rows)
  codes = rng.integers(-1, 2, (k, n)).astype(np.int8)
  x = rng.integers(-128, 128, (rows, k)).astype(np.int8)
  assert suits(rows, k, n)
  data = pack(jnp.asarray(codes)).data
  found = packed_dot(jnp.asarray(x), data, interpret=True)
  np.testing.assert_array_equal(found, x.astype(np.int64) @ codes)


@pytest.mark.parametrize(
  ("rows", "k", "n"),
  [(0, 512, 128), (MOST_ROWS + 1, 512, 128), (1, 256, 128), (1, 512, 64)],
)
def test_other_shapes_do_not_suit(rows, k, n):
  assert not suits(rows, k, n)


def test_layers_use_it_on_tpu_only():
  frozen = QTensor(pack(jnp.ones((512, 128), jnp.int8)), jnp.ones((1, 1)))
  x = jnp.ones((4, 512))

  def calls():
    jaxpr = jax.make_jaxpr(
      lambda x: bit_dot(x, frozen, RECIPES["bitnet_2b4t"])
    )(x)
    return len(list(equations(jaxpr.jaxpr, "pallas_call")))

  assert calls() == 0
  with backend.compiling_for("tpu"):
    assert calls() == 1
