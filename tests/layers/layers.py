"""Every layer as a function of parameters and input, for tables of tests."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from bitnet_jax import BitConv, BitDense, BitDenseGeneral
from bitnet_jax import nnx as bit_nnx

LINEN = {
  "BitDense": (lambda recipe: BitDense(6, recipe=recipe), (8, 12)),
  "BitDenseGeneral": (
    lambda recipe: BitDenseGeneral((2, 3), axis=(-2, -1), recipe=recipe),
    (8, 3, 4),
  ),
  "BitConv": (lambda recipe: BitConv(6, (3, 3), recipe=recipe), (8, 5, 5, 4)),
  "BitConv, grouped": (
    lambda recipe: BitConv(6, 3, feature_group_count=2, recipe=recipe),
    (8, 5, 4),
  ),
}
NNX = {
  "nnx.BitLinear": (
    lambda recipe, rngs: bit_nnx.BitLinear(12, 6, recipe=recipe, rngs=rngs),
    (8, 12),
  ),
  "nnx.BitLinearGeneral": (
    lambda recipe, rngs: bit_nnx.BitLinearGeneral(
      (3, 4), (2, 3), axis=(-2, -1), recipe=recipe, rngs=rngs
    ),
    (8, 3, 4),
  ),
  "nnx.BitConv": (
    lambda recipe, rngs: bit_nnx.BitConv(
      4, 6, (3, 3), recipe=recipe, rngs=rngs
    ),
    (8, 5, 5, 4),
  ),
}
# The others share every function below them with these.
QUICK = ("BitDense", "BitConv", "nnx.BitLinear")
LAYERS = [
  name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
  for name in (*LINEN, *NNX)
]


def layer(name, recipe="b158"):
  """Returns ``apply(params, x, strength=None)``, parameters and an input."""
  if name in LINEN:
    make, shape = LINEN[name]
    module = make(recipe)
    x = jax.random.normal(jax.random.key(1), shape)
    params = module.init(jax.random.key(0), x)["params"]

    def apply(params, x, strength=None):
      return module.apply({"params": params}, x, strength=strength)

    return apply, params, x
  make, shape = NNX[name]
  graph, params = nnx.split(make(recipe, nnx.Rngs(0)), nnx.Param)

  def apply_nnx(params, x, strength=None):
    return nnx.merge(graph, params)(x, strength=strength)

  return apply_nnx, params, jax.random.normal(jax.random.key(1), shape)


def loss(apply, strength=None):
  """Returns a scalar of parameters and input with a gradient everywhere."""

  def value(params, x):
    return jnp.mean(jnp.square(apply(params, x, strength) - 0.5))

  return value
