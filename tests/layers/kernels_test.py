"""Kernels that are quantized outside of the layers that multiply with them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import BitConv, BitDense, BitDenseGeneral, Quantizer, Recipe
from bitnet_jax.layers import bit_layers
from bitnet_jax.layers.introspection import quantize_kernels, with_codes
from tests.jaxprs import equations

PER_CHANNEL = Recipe(Quantizer("absmedian", (-1, 1), axis=0))
# Gradients of the two programs are sums in another order.
TOLERANCE = 1e-6


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, _=None):
    return x + nn.relu(BitDense(x.shape[-1])(x)), None


class Net(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(BitConv(6, (3, 3), recipe="b158_median")(x))
    x = BitDenseGeneral((2, 3), axis=(1, 2), recipe=PER_CHANNEL)(x)
    x = BitDenseGeneral(4, batch_dims=(0,))(x)
    x, _ = nn.remat(Block)(name="once")(x)
    blocks = nn.scan(
      nn.remat(Block),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=3,
    )
    x, _ = blocks(name="blocks")(x, None)
    return BitDense(2, recipe="trilm")(x)


@pytest.mark.slow
def test_model_takes_codes_in_place_of_kernels():
  model, x = Net(), jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
  params = model.init(jax.random.key(1), x)["params"]
  layers = bit_layers(model, x)

  def run(params, *, outside):
    codes = quantize_kernels(layers, params) if outside else {}
    return model.apply({"params": with_codes(params, codes)}, x)

  results = []
  for outside in (False, True):
    y, vjp = jax.vjp(lambda p, o=outside: run(p, outside=o), params)
    results.append((y, *vjp(jnp.ones_like(y))))
  np.testing.assert_array_equal(results[0][0], results[1][0])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE),
    *results,
  )


@pytest.mark.parametrize("outside, times", [(False, 2), (True, 1)])
def test_remat_does_not_round_a_kernel_again_that_came_as_codes(outside, times):
  model, x = nn.remat(Block)(), jnp.ones((5, 7))
  params = model.init(jax.random.key(0), x)["params"]
  layers = bit_layers(model, x)

  def loss(params):
    codes = quantize_kernels(layers, params) if outside else {}
    return jnp.sum(model.apply({"params": with_codes(params, codes)}, x)[0])

  jaxpr = jax.make_jaxpr(jax.grad(loss))(params)
  found = [
    eqn
    for eqn in equations(jaxpr.jaxpr, "round")
    if eqn.outvars[0].aval.shape == (7, 7)
  ]
  assert len(found) == times


def test_kernels_rounded_at_random_or_not_at_all_are_left_alone():
  stochastic = Recipe(Quantizer("absmean", (-1, 1), rounding="stochastic"))
  for recipe in (stochastic, "float"):
    layer = BitDense(3, recipe=recipe)
    x = jnp.ones((2, 4))
    rngs = {"params": jax.random.key(0), "quantize": jax.random.key(1)}
    params = layer.init(rngs, x)["params"]
    assert quantize_kernels(bit_layers(layer, x), params) == {}
