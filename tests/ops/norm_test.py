"""Tests of the norms without parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.ops import normalize

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# A few float32 roundings of values of order one.
TOLERANCE = dict(rtol=1e-5, atol=1e-5)


def reference(x, norm, axes):
  x = np.asarray(x, np.float64)
  if norm == "layer_norm":
    x = x - x.mean(axes, keepdims=True)
  return x / np.sqrt((x**2).mean(axes, keepdims=True) + 1e-5)


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16, jnp.float16))
@pytest.mark.parametrize("axes", ((-1,), (1, 2)))
@pytest.mark.parametrize("norm", ("layer_norm", "rms_norm"))
def test_norm_equals_its_formula_in_float32(norm, axes, dtype):
  x = 3 * jax.random.normal(jax.random.key(0), (2, 3, 4), dtype) + 1
  y = normalize(x, norm, axes=axes)
  assert y.dtype == jnp.float32
  np.testing.assert_allclose(y, reference(x, norm, axes), **TOLERANCE)


@pytest.mark.parametrize("norm", ("layer_norm", "rms_norm"))
def test_zeros_stay_zeros(norm):
  np.testing.assert_array_equal(normalize(jnp.zeros((2, 3)), norm), 0.0)


def test_equal_token_vanishes_under_layer_norm_only():
  x = jnp.full((1, 4), 3.0)
  np.testing.assert_array_equal(normalize(x, "layer_norm"), np.zeros((1, 4)))
  np.testing.assert_allclose(normalize(x, "rms_norm"), 1.0, **TOLERANCE)


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
@pytest.mark.parametrize("axes", ((-1,), (1, 2)))
@pytest.mark.parametrize("norm", ("layer_norm", "rms_norm"))
def test_squares_that_overflow_make_their_group_nan_and_no_other(
  norm, axes, dtype
):
  x = jax.random.normal(jax.random.key(0), (3, 4, 5), dtype)
  huge = x.at[1].multiply(1e20)

  def loss(x):
    y = normalize(x, norm, axes=axes)
    return jnp.sum(y[::2]) + jnp.sum(y[1]), y

  gradient, y = jax.grad(loss, has_aux=True)(huge)
  for found in (y, gradient):
    assert jnp.isnan(found[1]).all()
    assert jnp.isfinite(found[::2]).all()
  np.testing.assert_array_equal(y[::2], normalize(x, norm, axes=axes)[::2])


def test_largest_values_whose_squares_do_not_overflow_are_normalized():
  x = jnp.array([[1e18, -1e18, 3e18, -3e18]])
  y = normalize(x, "layer_norm")
  np.testing.assert_allclose(y, reference(x, "layer_norm", -1), **TOLERANCE)


def test_no_norm_returns_its_input():
  x = jnp.ones((2, 3), jnp.bfloat16)
  assert normalize(x, None) is x


def test_unknown_norm_is_named():
  with pytest.raises(ValueError, match="norm is 'batch_norm'"):
    normalize(jnp.ones(3), "batch_norm")


@pytest.mark.parametrize("norm", ("layer_norm", "rms_norm"))
@pytest.mark.parametrize("axes", ((-1,), (1, 2)))
def test_gradient_is_that_of_the_formula(norm, axes):
  x, g = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))

  def formula(x):
    x = x - jnp.mean(x, axes, keepdims=True) if norm == "layer_norm" else x
    return x / jnp.sqrt(jnp.mean(x**2, axes, keepdims=True) + 1e-5)

  (expected,) = jax.vjp(formula, x)[1](g)
  (actual,) = jax.vjp(lambda x: normalize(x, norm, axes=axes), x)[1](g)
  np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_gradient_keeps_the_input_and_two_numbers_a_group(dtype):
  x = jax.random.normal(jax.random.key(0), (6, 8), dtype)
  _, vjp = jax.vjp(lambda x: normalize(x, "layer_norm"), x)
  kept = {leaf.shape: leaf.dtype for leaf in jax.tree.leaves(vjp)}
  assert kept == {(6, 8): dtype, (6, 1): jnp.float32}
  assert len(jax.tree.leaves(vjp)) == 3
  assert vjp(jnp.ones((6, 8)))[0].dtype == dtype


def test_early_norm_runs_over_all_axes_but_the_first():
  x = jax.random.normal(jax.random.key(0), (2, 3, 4)) + 1
  y = normalize(x, "layer_norm_all")
  np.testing.assert_array_equal(y, normalize(x, "layer_norm", axes=(1, 2)))
  np.testing.assert_array_equal(  # Of single tokens and images it is the same.
    normalize(x[0], "layer_norm_all"), normalize(x[0], "layer_norm")
  )
  np.testing.assert_array_equal(
    normalize(x[0, 0], "layer_norm_all"), normalize(x[0, 0], "layer_norm")
  )
