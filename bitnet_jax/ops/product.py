"""Quantized products with a straight-through gradient, shared by dot and conv.

A product is bilinear in activations and weights. Here both become codes, the
codes are multiplied as integers, and the scales are applied to the result.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, ArrayLike, Float, Key

from bitnet_jax.ops.bilinear import Bilinear, Spec
from bitnet_jax.ops.placement import varying_alike
from bitnet_jax.ops.straight_through import along_last, straight_through_product
from bitnet_jax.quantizers.quantizer import check_real
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.types import QTensor

# The name of results for ``jax.checkpoint_policies.save_only_these_names``.
PRODUCT = "bit_product"


def draws(recipe: Recipe, x: Any, w: Any) -> bool:
  """Says whether an operand is rounded at random; codes are rounded already."""
  return any(
    quantizer is not None and quantizer.needs_key
    for quantizer, operand in ((recipe.acts, x), (recipe.weights, w))
    if not isinstance(operand, QTensor)
  )


def quantized_product(
  product: Bilinear,
  x: Float[Array, "..."] | QTensor,
  w: Float[Array, "..."] | QTensor,
  bias: Float[Array, " d_out"] | None,
  recipe: Recipe,
  *,
  strength: ArrayLike | None,
  key: Key[Array, ""] | None,
  precision: Any,
  dtype: Any,
) -> Float[Array, "..."]:
  """Multiplies ``x`` and ``w`` as the recipe says; see ``bit_dot``."""
  if bias is not None and bias.shape != w.shape[-1:]:
    raise ValueError(
      f"bias has the shape {bias.shape}; for weights {w.shape} it must have"
      f" the shape {w.shape[-1:]}"
    )
  x, w, bias = jax.tree.map(jnp.asarray, (x, w, bias))
  given = [a for a in (x, w, bias) if a is not None]
  if dtype is None:
    dtype = jnp.result_type(*(a.dtype for a in given))
  for name, operand, quantizer in (
    ("x", x, recipe.acts),
    ("w", w, recipe.weights),
  ):
    if isinstance(operand, QTensor) and (
      quantizer is None or strength is not None
    ):
      raise ValueError(
        f"{name} is a QTensor, which needs a recipe that quantizes it, and no"
        " strength"
      )
  if recipe.is_float:
    y = _float_product(product, x, w, bias, precision, dtype)
    return checkpoint_name(y, PRODUCT)
  check_real(x=x, w=w, bias=bias)
  if strength is not None and recipe.compute == "int8":
    raise ValueError(
      "compute is 'int8', but a strength was given, which blends operands in"
      " float; use compute='auto' while quantization is phased in"
    )
  spec = Spec(product=product, recipe=recipe, precision=precision, dtype=dtype)
  x_key, w_key = (None, None) if key is None else jax.random.split(key)
  if strength is not None:
    y = _phased_product(spec, x, w, bias, strength, x_key, w_key)
    return checkpoint_name(y, PRODUCT)
  x_latent, qx = _quantize(recipe.acts, x, product.act_axes, x_key)
  w_latent, qw = _quantize(recipe.weights, w, product.weight_axes, w_key)
  g_key = None
  if key is not None and recipe.backward == "int8":
    g_key = jax.random.fold_in(key, 2)
  operands = varying_alike(x_latent, w_latent, bias, qx, qw)
  y = straight_through_product(spec, *operands, g_key)
  return checkpoint_name(y.astype(dtype), PRODUCT)


def _float_product(product, x, w, bias, precision, dtype):
  """The full-precision twin: cast, multiply, add, as ``nn.Dense`` does."""
  y = product(x.astype(dtype), w.astype(dtype), precision=precision, dtype=None)
  return y if bias is None else y + along_last(bias.astype(dtype), y)


def _quantize(quantizer, operand, axes_of, key):
  """Returns the array that gradients go to, and the codes and scale."""
  if quantizer is None:
    return operand, None
  if isinstance(operand, QTensor):
    return operand.latent, QTensor(operand.qvalue, operand.scale)
  array = jax.lax.stop_gradient(operand)
  axes = axes_of(quantizer, array)
  return operand, quantizer.quantize(array, axes=axes, key=key)


def _phased_product(spec, x, w, bias, strength, x_key, w_key):
  """The product of operands that are only partly quantized, in float32."""
  recipe, product = spec.recipe, spec.product
  x, x_scale = _phase_in(
    spec, recipe.acts, x, product.act_axes, strength, x_key
  )
  w, w_scale = _phase_in(
    spec, recipe.weights, w, product.weight_axes, strength, w_key
  )
  y = product(x, w, precision=spec.precision, dtype=None)
  if bias is not None:
    bias = along_last(bias.astype(jnp.float32), y)
    if recipe.bias_in_product:
      scaled = bias * x_scale * along_last(w_scale, y)
      bias = bias + strength * (scaled - bias)
    y = y + bias
  return y.astype(spec.dtype)


def _phase_in(spec, quantizer, array, axes_of, strength, key):
  """Returns ``x + strength * (dequantize(quantize(x)) - x)`` and the scale."""
  values = array.astype(jnp.float32)
  if quantizer is None:
    return values, jnp.ones((1,) * array.ndim, jnp.float32)
  q = quantizer.quantize(
    jax.lax.stop_gradient(array), axes=axes_of(quantizer, array), key=key
  )
  phased = values + strength * (q.dequantize() - values)
  slope = 1.0
  if spec.recipe.ste == "clipped":
    inside = quantizer.in_range(array, axes=axes_of(quantizer, array))
    slope = jnp.where(inside, 1.0, 1.0 - strength)
  return _with_slope(values, jax.lax.stop_gradient((phased, slope))), q.scale


@jax.custom_jvp
def _with_slope(values, phased_and_slope):
  """Returns ``phased``, whose derivative by ``values`` is ``slope``."""
  del values
  return phased_and_slope[0]


@_with_slope.defjvp
def _with_slope_jvp(primals, tangents):
  _, slope = primals[1]
  return _with_slope(*primals), tangents[0] * slope
