"""Random keys are asked for where something is rounded by them."""

import jax
import jax.numpy as jnp
import pytest

from bitnet_jax import BitConv, BitDense, BitDenseGeneral, Quantizer, Recipe
from bitnet_jax.inference import freeze
from bitnet_jax.ops import quantize_input

WEIGHTS = Recipe(Quantizer("absmean", (-1, 1), rounding="stochastic"))
ACTS = Recipe(
  acts=Quantizer("absmax", (-127, 127), axis=-1, rounding="stochastic")
)
BACKWARD = Recipe(backward="int8")
LAYERS = {
  "dense": (BitDense(4), (3, 8)),
  "general": (BitDenseGeneral(4, batch_dims=(0,)), (2, 3, 8)),
  "conv": (BitConv(4, (3,)), (2, 5, 8)),
}


def make(name, recipe):
  """Returns a layer, shapes of its variables, and an input."""
  layer, shape = LAYERS[name]
  layer, x = layer.clone(recipe=recipe), jnp.ones(shape)
  return layer, jax.eval_shape(layer.init, jax.random.key(1), x), x


def trace(layer, variables, x, **more):
  return jax.eval_shape(lambda v: layer.apply(v, x, **more), variables)


def trace_gradient(layer, variables, x, **more):
  def gradient(variables):
    return jax.grad(lambda x: layer.apply(variables, x, **more).sum())(x)

  return jax.eval_shape(gradient, variables)


@pytest.mark.parametrize("name", LAYERS)
def test_forward_pass_needs_no_key_for_the_gradient(name):
  model = make(name, BACKWARD)
  trace(*model)
  trace_gradient(*model, rngs={"quantize": jax.random.key(2)})
  with pytest.raises(ValueError, match=r"rounds the cotangent .* needs a key"):
    trace_gradient(*model)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("recipe", (WEIGHTS, BACKWARD), ids=("w", "g"))
def test_frozen_kernels_need_no_key(name, recipe):
  layer, variables, x = make(name, recipe)
  frozen = jax.eval_shape(lambda v: freeze(v, layer, x), variables)
  trace(layer, frozen, x)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("recipe", (WEIGHTS, ACTS), ids=("w", "a"))
def test_what_is_rounded_at_random_needs_a_key(name, recipe):
  with pytest.raises(Exception, match="quantize"):
    trace(*make(name, recipe))


def test_input_that_is_rounded_already_needs_no_key():
  layer, variables, x = make("dense", ACTS)
  trace(layer, variables, quantize_input(x, ACTS, key=jax.random.key(2)))
