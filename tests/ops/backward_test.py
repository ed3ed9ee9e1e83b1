"""Tests of gradients by products of integers, and of bfloat16."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, Quantizer, Recipe, backend
from bitnet_jax.ops import bit_conv, bit_dot
from bitnet_jax.quantizers.recipe import INT8_PER_TOKEN
from tests.jaxprs import equations

INT8 = dataclasses.replace(RECIPES["b158"], backward="int8")
PER_TENSOR = Quantizer("absmax", (-128, 127))
PER_CHANNEL = Recipe(Quantizer("absmean", (-1, 1), axis=0), backward="int8")


def convolve(x, w, recipe, **kwargs):
  geometry = dict(window_strides=(1, 1), padding="SAME")
  return bit_conv(x, w, recipe, **geometry, **kwargs)


PRODUCTS = {
  "dot": (bit_dot, (16, 8), (8, 6)),
  "dot, batch axes": (bit_dot, (4, 4, 8), (8, 6)),
  "conv": (convolve, (3, 4, 4, 8), (3, 3, 8, 6)),
}


def draw(shapes):
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]


def gradients(product, recipe, x, w, key):
  y, vjp = jax.vjp(lambda x, w: product(x, w, recipe, key=key), x, w)
  return vjp(jax.random.normal(jax.random.key(9), y.shape))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", (INT8, PER_CHANNEL), ids=("tensor", "axis"))
@pytest.mark.parametrize(
  "product, x_shape, w_shape", PRODUCTS.values(), ids=PRODUCTS
)
def test_gradients_are_right_on_average(product, x_shape, w_shape, recipe):
  x, w = draw((x_shape, w_shape))
  exact = gradients(
    product, dataclasses.replace(recipe, backward="float"), x, w, None
  )
  n = 400
  keys = jax.random.split(jax.random.key(1), n)
  rounded = jax.vmap(lambda key: gradients(product, recipe, x, w, key))(keys)
  for many, expected in zip(rounded, exact, strict=True):
    spread = jnp.std(many, 0)
    assert jnp.max(spread) > 0
    # One draw is off by at most some hundredths of the largest entry, ...
    assert jnp.max(spread) < 0.03 * jnp.max(jnp.abs(expected))
    # ... and the mean of n by five standard errors in no entry.
    error = jnp.abs(jnp.mean(many, 0) - expected)
    assert jnp.all(error <= 5 * spread / n**0.5 + 1e-5)


def test_products_of_the_backward_pass_are_int8_too():
  x, w = draw(((16, 8), (8, 6)))
  jaxpr = jax.make_jaxpr(
    lambda: gradients(bit_dot, INT8, x, w, jax.random.key(0))
  )()
  products = list(equations(jaxpr.jaxpr, "dot_general"))
  assert len(products) == 3
  for eqn in products:
    assert [v.aval.dtype for v in eqn.invars] == [jnp.int8, jnp.int8]
    assert eqn.outvars[0].aval.dtype == jnp.int32


@pytest.mark.parametrize(
  "product",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name != "dot"))
    for name in PRODUCTS
  ],
)
def test_small_cotangents_lose_no_more_than_large_ones(product):
  apply, x_shape, w_shape = PRODUCTS[product]
  x, w, g = draw((x_shape, w_shape, (*x_shape[:-1], w_shape[-1])))
  _, vjp = jax.vjp(lambda x, w: apply(x, w, INT8, key=jax.random.key(2)), x, w)
  for small, large in zip(vjp(g * 2.0**-40), vjp(g), strict=True):
    np.testing.assert_array_equal(small * 2.0**40, large)


def test_forward_is_the_same():
  x, w = draw(((16, 8), (8, 6)))
  np.testing.assert_array_equal(
    bit_dot(x, w, INT8, key=jax.random.key(0)), bit_dot(x, w, "b158")
  )


def test_a_key_is_asked_for_by_the_gradient_alone():
  x, w = draw(((16, 8), (8, 6)))
  assert INT8.needs_key
  np.testing.assert_array_equal(bit_dot(x, w, INT8), bit_dot(x, w, "b158"))
  with pytest.raises(ValueError, match=r"backward='int8'.*needs a key"):
    jax.grad(lambda x: jnp.sum(bit_dot(x, w, INT8)))(x)


@pytest.mark.parametrize(
  "field, value", [("backward", "int4"), ("weights", None)]
)
def test_recipe_that_cannot_is_refused(field, value):
  with pytest.raises(ValueError, match="backward is 'int"):
    dataclasses.replace(INT8, **{field: value})


BFLOAT16 = {
  "tensor": Recipe(backward="bfloat16"),
  "axis": dataclasses.replace(PER_CHANNEL, backward="bfloat16"),
  "clipped": Recipe(backward="bfloat16", ste="clipped"),
}


@pytest.fixture(params=(1, 8), ids=("one device", "eight devices"))
def devices(request, monkeypatch):
  monkeypatch.setattr(jax, "device_count", lambda: request.param)


def transposed(product, recipe, x, w, g):
  """Both gradients for a cotangent."""
  return jax.vjp(lambda x, w: product(x, w, recipe), x, w)[1](g)


def rounded(g, scale):
  """The cotangent whose multiple by ``scale`` is exact in bfloat16."""
  return (g * scale).astype(jnp.bfloat16).astype(jnp.float32) / scale


@pytest.mark.slow
@pytest.mark.parametrize("name", BFLOAT16)
@pytest.mark.parametrize(
  "product, x_shape, w_shape", PRODUCTS.values(), ids=PRODUCTS
)
def test_bfloat16_rounds_the_cotangent_and_nothing_else(
  product, x_shape, w_shape, name, devices
):
  recipe = BFLOAT16[name]
  assert not recipe.needs_key
  exact = dataclasses.replace(recipe, backward="float")
  x, w, g = draw((x_shape, w_shape, (*x_shape[:-1], w_shape[-1])))
  per_token = -1 if product is bit_dot else tuple(range(1, x.ndim))
  of_x = jnp.max(jnp.abs(x), per_token, keepdims=True) / 128
  of_w = 1.0
  if name == "axis":
    of_w = jnp.mean(jnp.abs(w), tuple(range(w.ndim - 1)))
    of_w = jnp.broadcast_to(of_w.reshape((1,) * (g.ndim - 1) + (-1,)), g.shape)
  dx, dw = transposed(product, recipe, x, w, g)
  plain = transposed(product, exact, x, w, g)
  for found, expected, unrounded in (
    (dx, transposed(product, exact, x, w, rounded(g, of_w))[0], plain[0]),
    (dw, transposed(product, exact, x, w, rounded(g, of_x))[1], plain[1]),
  ):
    largest = jnp.max(jnp.abs(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5 * largest)
    off = jnp.max(jnp.abs(found - unrounded)) / largest
    assert 1e-5 < off < 2**-8


@pytest.mark.slow
@pytest.mark.parametrize("backward", ("float", "bfloat16"))
def test_gradients_of_each_example_are_those_of_it_alone(backward, devices):
  x, w, g = draw(((3, 5, 8), (8, 6), (3, 5, 6)))
  recipe = Recipe(backward=backward)

  def of_one(x, g):
    return transposed(bit_dot, recipe, x, w, g)

  many = jax.vmap(of_one)(x, g)
  alone = [of_one(*pair) for pair in zip(x, g, strict=True)]
  jax.tree.map(
    lambda found, *one_by_one: np.testing.assert_allclose(
      found, jnp.stack(one_by_one), atol=1e-5
    ),
    many,
    *alone,
  )


def test_products_of_the_backward_pass_are_of_bfloat16(devices):
  x, w, g = draw(((16, 8), (8, 6), (16, 6)))
  jaxpr = jax.make_jaxpr(
    lambda: transposed(bit_dot, BFLOAT16["tensor"], x, w, g)
  )()
  forward, *backward = equations(jaxpr.jaxpr, "dot_general")
  assert forward.invars[0].aval.dtype == jnp.int8
  assert len(backward) == 2
  for eqn in backward:
    assert [v.aval.dtype for v in eqn.invars] == [jnp.bfloat16] * 2
    assert eqn.outvars[0].aval.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("backward", ("float", "bfloat16", "int8"))
@pytest.mark.parametrize("acts", (INT8_PER_TOKEN, PER_TENSOR, None))
@pytest.mark.parametrize(
  "product, batch, window, columns",
  (
    (bit_dot, (2, 3), (), 8),
    (bit_dot, (2, 3), (), 160),
    (convolve, (2, 3, 3), (2, 2), 160),
  ),
  ids=("dot, narrow", "dot, wide", "conv, wide"),
)
def test_one_device_computes_what_several_do(
  monkeypatch, product, batch, window, acts, columns, backward
):
  if acts is None and backward != "float":
    pytest.skip("needs codes of both operands")
  recipe = Recipe(acts=acts, backward=backward)
  shapes = ((*batch, columns), (*window, columns, 6), (*batch, 6))
  x, w, g = draw(shapes)
  key = jax.random.key(3)

  def run(count):
    monkeypatch.setattr(jax, "device_count", lambda: count)
    return jax.vjp(lambda x, w: product(x, w, recipe, key=key), x, w)[1](g)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), run(1), run(8)
  )


@pytest.mark.parametrize("name", ("cpu", "gpu", "tpu"))
@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
@pytest.mark.parametrize("backward", ("float", "bfloat16"))
@pytest.mark.parametrize("product", ("dot", "conv"))
def test_gradients_have_the_types_of_the_operands_on_every_backend(
  product, backward, dtype, name
):
  apply, x_shape, w_shape = PRODUCTS[product]
  recipe = Recipe(backward=backward)
  x, w = jnp.zeros(x_shape, dtype), jnp.zeros(w_shape, dtype)

  def loss(x, w):
    return jnp.sum(apply(x, w, recipe).astype(jnp.float32))

  with backend.compiling_for(name):
    dx, dw = jax.eval_shape(jax.grad(loss, (0, 1)), x, w)
  assert (dx.shape, dx.dtype) == (x_shape, dtype)
  assert (dw.shape, dw.dtype) == (w_shape, dtype)
