"""Quantized products with a straight-through gradient, shared by dot and conv.

A product is bilinear in activations and weights. Here both become codes, the
codes are multiplied as integers, and the scales are applied to the result; the
gradient takes the rounding for the identity (Bengio et al., 1308.3432).
"""

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key

from bitnet_jax.ops import compute
from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.types import QTensor


@runtime_checkable
class Bilinear(Protocol):
  """A hashable bilinear operation; outputs end in the weights' last axis."""

  def __call__(
    self, x: Array, w: Array, *, precision: Any, dtype: Any
  ) -> Array:
    """Multiplies, accumulating in ``dtype`` (``None``: as the operands say)."""
    ...

  def act_axes(self, quantizer: Quantizer, x: Array) -> tuple[int, ...]:
    """Returns the axes of ``x`` that share a scale."""
    ...

  def weight_axes(self, quantizer: Quantizer, w: Array) -> tuple[int, ...]:
    """Returns the axes of ``w`` that share a scale."""
    ...

  def terms(self, w: Array) -> int:
    """Returns how many products are added up in one output element."""
    ...

  def slow_in_int8(self, x: Array, w: Array) -> bool:
    """Says whether XLA's CPU backend lacks a fast int8 path for the shapes."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Spec:
  """What of a product is known when it is traced."""

  product: Bilinear
  recipe: Recipe
  precision: Any
  dtype: Any


def quantized_product(
  product: Bilinear,
  x: Float[Array, "..."],
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
  given = [a for a in (x, w, bias) if a is not None]
  if dtype is None:
    dtype = jnp.result_type(*(a.dtype for a in given))
  if isinstance(w, QTensor) and (
    recipe.weights is None or strength is not None
  ):
    raise ValueError(
      "w is a QTensor, which needs a recipe that quantizes weights, and no"
      " strength"
    )
  if recipe.is_float:
    return _float_product(product, x, w, bias, precision, dtype)
  spec = _Spec(product=product, recipe=recipe, precision=precision, dtype=dtype)
  x_key, w_key = (None, None) if key is None else jax.random.split(key)
  if strength is not None:
    return _phased_product(spec, x, w, bias, strength, x_key, w_key)
  qx = _quantize(recipe.acts, x, product.act_axes, x_key)
  if isinstance(w, QTensor):
    latent, qw = None, w
  else:
    latent, qw = w, _quantize(recipe.weights, w, product.weight_axes, w_key)
  y = _straight_through_product(spec, x, latent, bias, qx, qw)
  return y.astype(dtype)


def _float_product(product, x, w, bias, precision, dtype):
  """The full-precision twin: cast, multiply, add, as ``nn.Dense`` does."""
  y = product(x.astype(dtype), w.astype(dtype), precision=precision, dtype=None)
  return y if bias is None else y + _along_last(bias.astype(dtype), y)


def _quantize(quantizer, array, axes_of, key):
  if quantizer is None:
    return None
  array = jax.lax.stop_gradient(array)
  return quantizer.quantize(array, axes=axes_of(quantizer, array), key=key)


def _along_last(v: Array, y: Array) -> Array:
  """Reshapes a vector, or a scale of one entry, to broadcast over ``y``."""
  return v.reshape((1,) * (y.ndim - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _straight_through_product(spec, x, w, bias, qx, qw):
  """Float32 product of the codes; gradients go to ``x``, ``w`` and ``bias``."""
  return _forward(spec, x, w, bias, qx, qw)[0]


def _forward(spec, x, w, bias, qx, qw):
  y = _product_of_codes(spec, x, w, qx, qw)
  scales = [qx.scale] if qx is not None else []
  scales += [_along_last(qw.scale, y)] if qw is not None else []
  bias32 = None if bias is None else _along_last(bias.astype(jnp.float32), y)
  if bias is not None and spec.recipe.bias_in_product:
    y = y + bias32
  for scale in scales:
    y = y * scale
  # A zero that compilers cannot fold: else they may contract the last product
  # with an addition that follows, and need not do so for both computes alike.
  y = y + (scales[-1] - scales[-1])
  if bias is not None and not spec.recipe.bias_in_product:
    y = y + bias32
  residuals = (
    x if qx is None else qx,
    w if qw is None else qw,
    *_gradient_masks(spec, x, w),
    # Cotangents must have the dtypes of the inputs, which codes do not tell.
    tuple(
      None if a is None else jnp.zeros((0,), a.dtype) for a in (x, w, bias)
    ),
  )
  return y, residuals


def _product_of_codes(spec, x, w, qx, qw):
  """The product before the scales, in float32."""
  if qx is None or qw is None:
    a = x if qx is None else qx.qvalue
    b = w if qw is None else qw.qvalue
    return spec.product(
      a.astype(spec.dtype),
      b.astype(spec.dtype),
      precision=spec.precision,
      dtype=jnp.float32,
    )
  a, b = qx.qvalue, qw.qvalue
  chosen = compute.choose_compute(
    spec.recipe,
    terms=spec.product.terms(b),
    slow_in_int8=spec.product.slow_in_int8(a, b),
  )
  if chosen == "int8":
    y = spec.product(a, b, precision=None, dtype=jnp.int32)
    return y.astype(jnp.float32)
  # Codes fit bfloat16 exactly, which GPU and TPU multiply fast and sum in
  # float32; CPUs want float32.
  codes_dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
  return spec.product(
    a.astype(codes_dtype),
    b.astype(codes_dtype),
    precision=jax.lax.Precision.HIGHEST,
    dtype=jnp.float32,
  )


def _gradient_masks(spec, x, w):
  """For the clipped estimator, where each rounded operand was in range."""
  recipe, product = spec.recipe, spec.product
  if recipe.ste == "identity":
    return None, None
  in_range = []
  for quantizer, array, axes_of in (
    (recipe.acts, x, product.act_axes),
    (recipe.weights, w, product.weight_axes),
  ):
    if quantizer is None or array is None:
      in_range.append(None)
    else:
      axes = axes_of(quantizer, array)
      in_range.append(quantizer.in_range(array, axes=axes))
  return tuple(in_range)


def _backward(spec, residuals, g):
  x, w, x_mask, w_mask, tokens = residuals
  g = g.astype(jnp.float32)
  x_values = x.dequantize() if isinstance(x, QTensor) else x.astype(g.dtype)
  if isinstance(w, QTensor):
    w_values, w_scale = w.qvalue.astype(g.dtype), _along_last(w.scale, g)
  else:
    w_values, w_scale = w.astype(g.dtype), None
  product = functools.partial(
    spec.product, precision=spec.precision, dtype=jnp.float32
  )
  g_scaled = g if w_scale is None else g * w_scale
  (dx,) = jax.linear_transpose(lambda a: product(a, w_values), x_values)(
    g_scaled
  )
  dw = db = None
  if tokens[1] is not None:
    (dw,) = jax.linear_transpose(lambda b: product(x_values, b), w_values)(g)
    dw = dw if w_mask is None else jnp.where(w_mask, dw, 0)
  if tokens[2] is not None:
    g_bias = g
    if spec.recipe.bias_in_product:
      g_bias = g_scaled * (x.scale if isinstance(x, QTensor) else 1.0)
    db = jnp.sum(g_bias, tuple(range(g.ndim - 1)))
  dx = dx if x_mask is None else jnp.where(x_mask, dx, 0)
  dx, dw, db = (
    None if d is None else d.astype(token.dtype)
    for d, token in zip((dx, dw, db), tokens, strict=True)
  )
  return dx, dw, db, None, None


_straight_through_product.defvjp(_forward, _backward)


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
    bias = _along_last(bias.astype(jnp.float32), y)
    if recipe.bias_in_product:
      scaled = bias * x_scale * _along_last(w_scale, y)
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
  phased, slope = primals[1]
  return phased, tangents[0] * slope
