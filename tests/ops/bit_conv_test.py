"""Tests of the quantized convolution."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, Quantizer, Recipe
from bitnet_jax.ops import bit_conv
from bitnet_jax.ops.cpu import conv as cpu_conv
from tests.jaxprs import equations

B158 = RECIPES["b158"]
# Against the product of dequantized operands in float32.
TOLERANCE = 1e-5

GEOMETRIES = {
  "one axis": ((2, 9, 3), (4, 3, 5), dict(window_strides=(2,), padding="SAME")),
  "two axes": (
    (2, 6, 7, 4),
    (3, 2, 4, 5),
    dict(window_strides=(1, 2), padding="VALID"),
  ),
  "three axes": (
    (2, 4, 3, 5, 2),
    (2, 2, 3, 2, 3),
    dict(window_strides=(1, 1, 1), padding="SAME"),
  ),
  "groups": (
    (2, 5, 5, 6),
    (3, 3, 2, 9),
    dict(window_strides=(1, 1), padding="SAME", feature_group_count=3),
  ),
  "dilations": (
    (1, 5, 6, 2),
    (3, 2, 2, 4),
    dict(
      window_strides=(2, 1),
      padding=((1, 0), (2, 1)),
      lhs_dilation=(2, 1),
      rhs_dilation=(1, 3),
    ),
  ),
}
RECIPES_TRIED = {
  "both": B158,
  "clipped": Recipe(ste="clipped"),
  "bias in product": Recipe(bias_in_product=True),
  "other axes": Recipe(
    Quantizer("absmean", (-1, 1), axis=0), Quantizer("absmax", (-128, 127))
  ),
  "weights only": RECIPES["trilm"],
  "acts only": Recipe(None),
}


def draw(x_shape, w_shape):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = x_shape, w_shape, w_shape[-1:]
  return [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]


def channels_last(rank):
  spatial = "DHW"[-rank:]
  return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"


def dequantized(quantizer, values, axes):
  if quantizer is None:
    return values, 1.0, jnp.ones(values.shape, bool)
  q = quantizer.quantize(values, axes=axes)
  return q.dequantize(), q.scale, quantizer.in_range(values, axes=axes)


def reference(recipe, x, w, bias, g, geometry):
  """Quantize, then convolve in float; straight-through gradients."""
  x_axes = tuple(range(1 if recipe.acts and recipe.acts.axis else 0, x.ndim))
  per_channel = recipe.weights and recipe.weights.axis == 0
  w_axes = tuple(range(w.ndim - 1 if per_channel else w.ndim))
  x, x_scale, x_inside = dequantized(recipe.acts, x, x_axes)
  w, w_scale, w_inside = dequantized(recipe.weights, w, w_axes)

  def convolve(x, w):
    return jax.lax.conv_general_dilated(
      x, w, dimension_numbers=channels_last(x.ndim - 2), **geometry
    )

  y, vjp = jax.vjp(convolve, x, w)
  g = g[: y.shape[0]]
  scale = jnp.ones((1,) * y.ndim)
  if recipe.bias_in_product:
    scale = x_scale * jnp.reshape(w_scale, (1,) * (y.ndim - 1) + (-1,))
  y = y + scale * jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,))
  dx, dw = vjp(g)
  if recipe.ste == "clipped":
    dx, dw = jnp.where(x_inside, dx, 0), jnp.where(w_inside, dw, 0)
  return y, dx, dw, jnp.sum(g * scale, tuple(range(y.ndim - 1)))


@pytest.fixture(params=(1, 99), ids=("by tap", "by convolution"))
def gradient(request, monkeypatch):
  """Both ways to the gradient of a weight, whatever the channels."""
  monkeypatch.setattr(cpu_conv, "MIN_CHANNELS_BY_TAP", request.param)


@pytest.mark.slow
@pytest.mark.parametrize(
  "geometry, recipe",
  [(geometry, "both") for geometry in GEOMETRIES]
  + [("two axes", recipe) for recipe in list(RECIPES_TRIED)[1:]],
)
def test_output_and_gradients_equal_the_float_composition(
  geometry, recipe, gradient, strict_dtypes
):
  x_shape, w_shape, geometry = GEOMETRIES[geometry]
  recipe = RECIPES_TRIED[recipe]
  x, w, bias = draw(x_shape, w_shape)
  y, vjp = jax.vjp(
    lambda x, w, b: bit_conv(x, w, recipe, bias=b, **geometry), x, w, bias
  )
  g = jax.random.normal(jax.random.key(1), y.shape)
  expected = reference(recipe, x, w, bias, g, geometry)
  for a, b in zip((y, *vjp(g)), expected, strict=True):
    assert a.shape == b.shape
    largest = float(jnp.max(jnp.abs(b)))
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * largest)


def test_one_scale_is_shared_by_an_example_and_by_no_other():
  x_shape, w_shape, geometry = GEOMETRIES["two axes"]
  x, w, _ = draw(x_shape, w_shape)
  y = bit_conv(x, w, "b158", **geometry)
  larger = bit_conv(x.at[1].mul(64.0), w, "b158", **geometry)
  np.testing.assert_array_equal(larger[0], y[0])
  np.testing.assert_array_equal(larger[1], 64 * y[1])


def test_bad_value_makes_its_example_nan_and_no_other():
  x_shape, w_shape, geometry = GEOMETRIES["two axes"]
  x, w, _ = draw(x_shape, w_shape)
  y = bit_conv(x.at[1, 0, 0, 0].set(np.inf), w, "b158", **geometry)
  assert np.isfinite(y[0]).all()
  assert np.isnan(y[1]).all()


def product_dtypes(c_in, c_out, groups=1):
  x = jax.ShapeDtypeStruct((2, 6, 6, c_in * groups), jnp.float32)
  w = jax.ShapeDtypeStruct((3, 3, c_in, c_out * groups), jnp.float32)
  convolve = functools.partial(
    bit_conv,
    recipe=B158,
    window_strides=(1, 1),
    padding="SAME",
    feature_group_count=groups,
  )
  jaxpr = jax.make_jaxpr(lambda x, w: convolve(x, w))(x, w)
  (eqn,) = equations(jaxpr.jaxpr, "conv_general_dilated")
  return [v.aval.dtype for v in (*eqn.invars, *eqn.outvars)]


def test_product_multiplies_int8_into_int32():
  assert product_dtypes(4, 32) == [jnp.int8, jnp.int8, jnp.int32]


@pytest.mark.parametrize(
  "c_in, c_out, groups, dtype",
  [
    (1, 64, 1, jnp.float32),
    (3, 64, 1, jnp.float32),
    (16, 16, 1, jnp.float32),
    (16, 16, 4, jnp.float32),
    (1, 1, 64, jnp.float32),
    (16, 17, 1, jnp.int8),
    (32, 4, 1, jnp.int8),
    (32, 32, 2, jnp.int8),
  ],
)
def test_auto_avoids_what_is_slow_in_int8_on_cpu(c_in, c_out, groups, dtype):
  assert product_dtypes(c_in, c_out, groups)[0] == dtype


@pytest.mark.parametrize("strength", (0.0, 1.0))
def test_strength_goes_from_the_float_to_the_quantized_convolution(strength):
  x_shape, w_shape, geometry = GEOMETRIES["two axes"]
  x, w, bias = draw(x_shape, w_shape)
  recipe = B158 if strength else RECIPES["float"]
  expected = bit_conv(x, w, recipe, bias=bias, **geometry)
  y = bit_conv(x, w, "b158", bias=bias, strength=strength, **geometry)
  np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def test_float_beyond_its_exact_range_is_an_error_with_the_terms():
  recipe = dataclasses.replace(B158, compute="float")
  x = jax.ShapeDtypeStruct((1, 512, 257, 1), jnp.float32)
  w = jax.ShapeDtypeStruct((512, 257, 1, 1), jnp.float32)
  with pytest.raises(ValueError, match=r"131584 terms.*up to 131072 terms"):
    jax.eval_shape(
      lambda x, w: bit_conv(
        x, w, recipe, window_strides=(1, 1), padding="VALID"
      ),
      x,
      w,
    )


def test_quantized_weights_are_taken_as_they_are():
  x_shape, w_shape, geometry = GEOMETRIES["two axes"]
  x, w, bias = draw(x_shape, w_shape)
  q = B158.weights.quantize(w)
  np.testing.assert_array_equal(
    bit_conv(x, q, B158, bias=bias, **geometry),
    bit_conv(x, w, B158, bias=bias, **geometry),
  )


@pytest.mark.parametrize(
  "x_shape, w_shape", [((2, 5, 3), (3, 3, 3, 4)), ((2, 3), (3, 4))]
)
def test_shapes_that_do_not_match_are_named(x_shape, w_shape):
  with pytest.raises((ValueError, TypeError)):
    bit_conv(
      jnp.zeros(x_shape),
      jnp.zeros(w_shape),
      "b158",
      window_strides=(1,),
      padding="SAME",
    )


def test_sums_beyond_int32_do_not_wrap_or_are_refused():
  many = 140_000
  x, w = jnp.ones((1, 2, many)), jnp.ones((1, many, 2))
  arguments = {"window_strides": (1,), "padding": "VALID"}
  y = bit_conv(x, w, "int8", **arguments)
  np.testing.assert_allclose(y, many * 127 / 128, rtol=1e-6)
  wide = jnp.ones((1, many, 1)), jnp.ones((many, 1, 2))
  with pytest.raises(ValueError, match="at most 132104 terms"):
    bit_conv(*wide, "int8", **arguments)
