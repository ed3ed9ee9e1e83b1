"""Tests of gradients by products of integers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, Quantizer, Recipe
from bitnet_jax.ops import bit_conv, bit_dot
from tests.jaxprs import equations

INT8 = dataclasses.replace(RECIPES["b158"], backward="int8")
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


def test_forward_is_the_same():
  x, w = draw(((16, 8), (8, 6)))
  np.testing.assert_array_equal(
    bit_dot(x, w, INT8, key=jax.random.key(0)), bit_dot(x, w, "b158")
  )


def test_a_key_is_asked_for():
  x, w = draw(((16, 8), (8, 6)))
  assert INT8.needs_key
  with pytest.raises(ValueError, match="needs a key"):
    bit_dot(x, w, INT8)


@pytest.mark.parametrize(
  "field, value", [("backward", "int4"), ("weights", None)]
)
def test_recipe_that_cannot_is_refused(field, value):
  with pytest.raises(ValueError, match="backward is 'int"):
    dataclasses.replace(INT8, **{field: value})
