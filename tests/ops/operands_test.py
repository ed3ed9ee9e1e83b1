"""Tests of operands that are quantized once and used several times."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import (
  RECIPES,
  BitConv,
  BitDense,
  BitDenseGeneral,
  QTensor,
  Quantizer,
  Recipe,
)
from bitnet_jax.ops import bit_dot, normalize, quantize_input
from tests.jaxprs import equations

B158 = RECIPES["b158"]
PER_TENSOR = Recipe(acts=Quantizer("absmax", (-128, 127)))
# Gradients of the two programs are sums in another order.
TOLERANCE = 1e-6

LAYERS = {
  "dense": (BitDense(5), (3, 4, 6), (-1,)),
  "dense, per tensor": (BitDense(5, recipe=PER_TENSOR), (3, 4, 6), (-1,)),
  "general": (BitDenseGeneral((2, 3), axis=(1, 2)), (3, 4, 6), (1, 2)),
  "general, middle axis": (BitDenseGeneral(4, axis=1), (3, 4, 6), (1,)),
  "general, batch axis": (
    BitDenseGeneral(4, batch_dims=(0,)),
    (3, 4, 6),
    (-1,),
  ),
  "conv": (BitConv(4, (3, 3)), (2, 6, 6, 3), (1, 2, 3)),
  "conv, batch axes": (BitConv(4, (3, 3)), (2, 2, 6, 6, 3), (2, 3, 4)),
  "conv, circular": (
    BitConv(4, (3, 3), padding="CIRCULAR"),
    (2, 6, 6, 3),
    (1, 2, 3),
  ),
}


def results(f, *arguments):
  y, vjp = jax.vjp(f, *arguments)
  return y, *vjp(jax.random.normal(jax.random.key(7), y.shape))


@pytest.mark.slow
@pytest.mark.parametrize("layer, shape, axes", LAYERS.values(), ids=LAYERS)
def test_layer_takes_a_quantized_input_for_its_own(layer, shape, axes):
  x = jax.random.normal(jax.random.key(0), shape)
  params = layer.init(jax.random.key(1), x)
  own = results(layer.apply, params, x)
  handed = results(
    lambda params, x: layer.apply(
      params, quantize_input(x, layer.recipe, axes=axes)
    ),
    params,
    x,
  )
  np.testing.assert_array_equal(handed[0], own[0])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE),
    handed[1:],
    own[1:],
  )


class Gated(nn.Module):
  share: bool

  @nn.compact
  def __call__(self, x):
    x = quantize_input(x, B158) if self.share else x
    return nn.silu(BitDense(8, name="gate")(x)) * BitDense(8, name="up")(x)


def test_shared_input_is_rounded_once_and_its_gradients_add_up():
  x = jax.random.normal(jax.random.key(0), (4, 6))
  params = Gated(share=False).init(jax.random.key(1), x)
  apart, shared = (Gated(share=share).apply for share in (False, True))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE),
    results(shared, params, x),
    results(apart, params, x),
  )

  def roundings(f):
    jaxpr = jax.make_jaxpr(lambda *a: results(f, *a))(params, x)
    return len(list(equations(jaxpr.jaxpr, "round")))

  assert roundings(apart) == 4
  assert roundings(shared) == 3


def test_integers_are_taken_as_floats():
  x = jnp.arange(12).reshape(3, 4)
  floats = quantize_input(x.astype(jnp.float32), B158)
  integers = quantize_input(x, B158)
  jax.tree.map(np.testing.assert_array_equal, integers, floats)


@pytest.mark.parametrize("name", ("x", "w"))
def test_gradient_goes_to_the_latent_array_if_there_is_one(name):
  x = normalize(jax.random.normal(jax.random.key(0), (4, 6)), "layer_norm")
  w = jax.random.normal(jax.random.key(1), (6, 5))
  expected = dict(
    zip("yxw", results(lambda x, w: bit_dot(x, w, B158), x, w), strict=True)
  )

  def product(a, *, latent):
    quantizer = {"x": B158.acts, "w": B158.weights}[name]
    q = quantizer.quantize(a)
    q = dataclasses.replace(q, latent=a if latent else None)
    return bit_dot(**({"x": x, "w": w} | {name: q}), recipe=B158)

  given = {"x": x, "w": w}[name]
  y, gradient = results(lambda a: product(a, latent=True), given)
  np.testing.assert_array_equal(y, expected["y"])
  np.testing.assert_array_equal(gradient, expected[name])


def test_recipe_that_leaves_activations_in_float_is_refused():
  with pytest.raises(ValueError, match="quantizes activations"):
    quantize_input(jnp.ones((2, 3)), "trilm")


@pytest.mark.parametrize("recipe, strength", [("trilm", None), ("b158", 0.5)])
def test_quantized_input_where_a_float_one_is_needed_is_refused(
  recipe, strength
):
  x = quantize_input(jnp.ones((2, 3)), B158)
  with pytest.raises(ValueError, match="x is a QTensor"):
    bit_dot(x, jnp.ones((3, 4)), recipe, strength=strength)


def test_dtype_of_a_layer_is_that_of_what_was_quantized():
  x = jnp.ones((2, 3), jnp.bfloat16)
  layer = BitDense(4, param_dtype=jnp.bfloat16, recipe="bitnet_2b4t")
  y = layer.init_with_output(jax.random.key(0), x)[0]
  q = quantize_input(x, "bitnet_2b4t")
  assert q.dtype == jnp.bfloat16
  handed = layer.init_with_output(jax.random.key(0), q)[0]
  assert handed.dtype == y.dtype == jnp.bfloat16
  assert QTensor(q.qvalue, q.scale).dtype == jnp.float32


@pytest.mark.parametrize("acts", (B158.acts, None))
def test_early_norm_shows_a_token_those_after_it(acts):
  """Dense layers see other tokens by this norm only; with codes or without."""

  def of_later(norm):
    layer = BitDense(5, recipe=Recipe(acts=acts, norm=norm))
    x = jax.random.normal(jax.random.key(0), (2, 3, 6))
    params = layer.init(jax.random.key(1), x)
    gradient = jax.grad(lambda x: layer.apply(params, x)[:, 0].sum())(x)
    plain = dataclasses.replace(layer, recipe=Recipe(acts=acts, norm=None))
    np.testing.assert_allclose(
      layer.apply(params, x), plain.apply(params, normalize(x, norm)), rtol=1e-5
    )
    return np.abs(gradient[:, 1:]).max()

  assert of_later("layer_norm") == 0
  assert of_later("layer_norm_all") > 1e-3
