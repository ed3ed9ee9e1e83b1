"""Second derivatives of every layer, and transformations of its gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES
from bitnet_jax.ops import bit_dot
from tests.layers.layers import LAYERS, layer, loss

# A few roundings in float32, relative to the largest entry.
TOLERANCE = 2e-5
TWICE = "a quantized product cannot be differentiated twice"


def assert_close(actual, expected):
  for a, e in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
    largest = np.max(np.abs(e))
    assert largest > 0
    np.testing.assert_allclose(a, e, rtol=0, atol=TOLERANCE * largest)


def straight_through(quantizer, x, axes):
  q = quantizer.quantize(jax.lax.stop_gradient(x), axes=axes)
  return x + jax.lax.stop_gradient(q.dequantize() - x)


def simulated_dot(x, w, recipe):
  """The product by automatic differentiation of simulated quantization."""
  x = straight_through(recipe.acts, x, (1,))
  return x @ straight_through(recipe.weights, w, (0, 1))


def penalty(product):
  """The gradient of a loss by its input, squared: a gradient penalty."""

  def value(x, w):
    of_x = jax.grad(lambda x: jnp.sum(jnp.sin(product(x, w))))(x)
    return jnp.sum(jnp.square(of_x))

  return value


@functools.cache
def operands():
  keys = jax.random.split(jax.random.key(0))
  return jax.random.normal(keys[0], (4, 8)), jax.random.normal(keys[1], (8, 3))


def full(x, w):
  return bit_dot(x, w, "b158")


def phased(x, w):
  return bit_dot(x, w, "b158", strength=1.0)


def simulated(x, w):
  return simulated_dot(x, w, RECIPES["b158"])


@pytest.mark.parametrize("argument", (0, 1), ids=("x", "w"))
@pytest.mark.parametrize("product", (full, phased))
def test_hessian_by_one_operand_is_that_of_simulated_quantization(
  product, argument
):
  def hessian(product):
    value = lambda *xw: jnp.sum(jnp.sin(product(*xw)))  # noqa: E731
    twice = jax.jacrev(jax.jacrev(value, argument), argument)
    return jax.jit(twice)(*operands())

  assert_close(hessian(product), hessian(simulated))


@pytest.mark.parametrize(
  "wrap",
  (
    pytest.param(lambda f: f, marks=pytest.mark.slow, id="eager"),
    jax.jit,
    pytest.param(jax.checkpoint, marks=pytest.mark.slow),
  ),
)
def test_gradient_penalty_is_an_error_or_that_of_simulated_quantization(wrap):
  def gradients(product):
    return jax.grad(wrap(penalty(product)), argnums=(0, 1))(*operands())

  with pytest.raises(TypeError, match=f"{TWICE}.*strength=1.0"):
    gradients(full)
  assert_close(gradients(phased), gradients(simulated))


def test_hessian_vector_product_is_not_zero():
  x, w = operands()
  gradient = jax.grad(lambda w: jnp.sum(jnp.square(full(x, w))))
  _, vjp = jax.vjp(gradient, w)
  q = RECIPES["b158"].acts.quantize(x).dequantize()
  assert_close(vjp(jnp.ones_like(w))[0], 2 * q.T @ q @ jnp.ones_like(w))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_hessian_of_a_layer_is_an_error_or_that_of_its_phased_twin(name):
  apply, params, x = layer(name)

  def of_penalty(strength):
    value = loss(apply, strength)

    def of_params(params):
      gradient = jax.grad(value, argnums=1)(params, x)
      return jnp.sum(jnp.square(gradient))

    return jax.jit(jax.grad(of_params))(params)

  with pytest.raises(TypeError, match=TWICE):
    of_penalty(None)
  found = of_penalty(1.0)
  assert all(np.any(leaf) for leaf in jax.tree.leaves(found))


@pytest.mark.slow
@pytest.mark.parametrize("name", ("BitDense", "BitConv"))
def test_forward_mode_is_an_error(name):
  apply, params, x = layer(name)
  with pytest.raises(TypeError, match="forward-mode"):
    jax.jvp(lambda x: apply(params, x), (x,), (x,))
  with pytest.raises(TypeError):
    jax.hessian(lambda x: loss(apply)(params, x))(x)


def test_cotangents_rounded_to_int8_have_no_derivative():
  x, w = operands()
  recipe = dataclasses.replace(RECIPES["b158"], backward="int8")

  def gradient(w):
    product = bit_dot(x, w, recipe, key=jax.random.key(0))
    return jnp.sum(jnp.square(product))

  with pytest.raises(TypeError, match=TWICE):
    jax.grad(lambda w: jnp.sum(jax.grad(gradient)(w)))(w)


@pytest.mark.parametrize("name", LAYERS)
def test_gradient_is_the_same_under_every_transformation(name):
  apply, params, x = layer(name)
  value = loss(apply)
  gradient = jax.grad(value, argnums=(0, 1))
  expected = jax.jit(gradient)(params, x)

  def by_vmap(params, x):
    def one(params, x):
      return gradient(params, x[None])

    of_params, of_x = jax.vmap(one, (None, 0))(params, x)
    return jax.tree.map(lambda g: jnp.mean(g, 0), of_params), of_x[:, 0] / len(
      x
    )

  def by_scan(params, x):
    def add(total, x):
      return total + value(params, x[None]), None

    total, _ = jax.lax.scan(add, 0.0, x)
    return total / len(x)

  assert_close(jax.jit(by_vmap)(params, x), expected)
  assert_close(jax.jit(jax.grad(by_scan, argnums=(0, 1)))(params, x), expected)
  remat = jax.grad(jax.checkpoint(value), argnums=(0, 1))
  assert_close(jax.jit(remat)(params, x), expected)
  donated = jax.tree.map(jnp.copy, (params, x))
  assert_close(jax.jit(gradient, donate_argnums=(0, 1))(*donated), expected)


def test_an_operand_in_float_is_differentiated_twice():
  def product(x, w):
    return bit_dot(x, w, "trilm")

  def simulated(x, w):
    return x @ straight_through(RECIPES["trilm"].weights, w, (0, 1))

  def of_weights(product):
    def value(x, w):
      gradient = jax.grad(lambda w: jnp.sum(jnp.sin(product(x, w))))(w)
      return jnp.sum(jnp.square(gradient))

    return jax.grad(value)(*operands())

  assert_close(of_weights(product), of_weights(simulated))
  with pytest.raises(TypeError, match=TWICE):
    jax.grad(penalty(product), argnums=1)(*operands())
