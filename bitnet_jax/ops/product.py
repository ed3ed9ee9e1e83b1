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
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, ArrayLike, Float, Key

from bitnet_jax.ops import compute
from bitnet_jax.ops.packing import unpacked
from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.types import Packed, QTensor

# The name of results for ``jax.checkpoint_policies.save_only_these_names``.
PRODUCT = "bit_product"
# How a cotangent is rounded under backward="int8". Those of a mean over many
# examples are far below the floor of other operands.
GRADIENT = Quantizer(
  "absmax", (-127, 127), axis=-1, eps=1e-30, rounding="stochastic"
)


@runtime_checkable
class Bilinear(Protocol):
  """A hashable bilinear operation; outputs end in the weights' last axis."""

  def __call__(
    self, x: Array, w: Array | Packed, *, precision: Any, dtype: Any
  ) -> Array:
    """Multiplies, accumulating in ``dtype`` (``None``: as the operands say).

    Packed codes go with an ``x`` of int8.
    """
    ...

  def input_gradient(
    self,
    g: Array,
    w: Array | QTensor,
    x: jax.ShapeDtypeStruct,
    *,
    precision: Any,
  ) -> Array:
    """Transposes by ``x``; the sums are int32 for int8 codes, else float32.

    Ternary codes may still have a scale to them, if that is a single one.
    """
    ...

  def weight_gradient(
    self,
    g: Array,
    x: Array | QTensor,
    w: jax.ShapeDtypeStruct,
    *,
    precision: Any,
  ) -> Array:
    """Transposes by ``w``, likewise; ``x`` may still have its scale to it.

    The result may have the dtype of ``w``, so that it is summed over devices in
    that.
    """
    ...

  def act_axes(self, quantizer: Quantizer, x: Array) -> tuple[int, ...]:
    """Returns the axes of ``x`` that share a scale."""
    ...

  def weight_axes(self, quantizer: Quantizer, w: Array) -> tuple[int, ...]:
    """Returns the axes of ``w`` that share a scale."""
    ...

  def terms(self, w: Array | Packed) -> int:
    """Returns how many products are added up in one output element."""
    ...

  def slow_in_int8(self, x: Array, w: Array | Packed) -> bool:
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
  if strength is not None and recipe.compute == "int8":
    raise ValueError(
      "compute is 'int8', but a strength was given, which blends operands in"
      " float; use compute='auto' while quantization is phased in"
    )
  if recipe.needs_key and key is None:
    raise ValueError(
      "the recipe rounds stochastically, which needs a key; none was given"
    )
  spec = _Spec(product=product, recipe=recipe, precision=precision, dtype=dtype)
  x_key, w_key = (None, None) if key is None else jax.random.split(key)
  if strength is not None:
    y = _phased_product(spec, x, w, bias, strength, x_key, w_key)
    return checkpoint_name(y, PRODUCT)
  x_latent, qx = _quantize(recipe.acts, x, product.act_axes, x_key)
  w_latent, qw = _quantize(recipe.weights, w, product.weight_axes, w_key)
  g_key = None
  if key is not None and recipe.backward == "int8":
    g_key = jax.random.fold_in(key, 2)
  y = _straight_through_product(spec, x_latent, w_latent, bias, qx, qw, g_key)
  return checkpoint_name(y.astype(dtype), PRODUCT)


def _float_product(product, x, w, bias, precision, dtype):
  """The full-precision twin: cast, multiply, add, as ``nn.Dense`` does."""
  y = product(x.astype(dtype), w.astype(dtype), precision=precision, dtype=None)
  return y if bias is None else y + _along_last(bias.astype(dtype), y)


def _quantize(quantizer, operand, axes_of, key):
  """Returns the array that gradients go to, and the codes and scale."""
  if quantizer is None:
    return operand, None
  if isinstance(operand, QTensor):
    return operand.latent, QTensor(operand.qvalue, operand.scale)
  array = jax.lax.stop_gradient(operand)
  axes = axes_of(quantizer, array)
  return operand, quantizer.quantize(array, axes=axes, key=key)


def _along_last(v: Array, y: Array) -> Array:
  """Reshapes a vector, or a scale of one entry, to broadcast over ``y``."""
  return v.reshape((1,) * (y.ndim - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _straight_through_product(spec, x, w, bias, qx, qw, g_key):
  """Float32 product of the codes; gradients go to ``x``, ``w`` and ``bias``."""
  return _forward(spec, x, w, bias, qx, qw, g_key)[0]


def _forward(spec, x, w, bias, qx, qw, g_key):
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
    g_key,
  )
  return y, residuals


def _product_of_codes(spec, x, w, qx, qw):
  """The product before the scales, in float32."""
  if qx is None or qw is None:
    a = x if qx is None else qx.codes
    b = w if qw is None else unpacked(qw).codes
    return spec.product(
      a.astype(spec.dtype),
      b.astype(spec.dtype),
      precision=spec.precision,
      dtype=jnp.float32,
    )
  a, b = qx.codes, qw.qvalue
  chosen = compute.choose_compute(
    spec.recipe,
    terms=spec.product.terms(b),
    slow_in_int8=spec.product.slow_in_int8(a, b),
  )
  if chosen == "int8":
    y = spec.product(a, b, precision=None, dtype=jnp.int32)
    return y.astype(jnp.float32)
  codes_dtype = compute.float_dtype_of_codes()
  return spec.product(
    a.astype(codes_dtype),
    unpacked(qw).codes.astype(codes_dtype),
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
  x, w, x_mask, w_mask, (x_token, w_token, bias_token), g_key = residuals
  if compute.on_cpu():
    # Else XLA quantizes anew in each product, out of floats that it keeps.
    x, w = map(jax.lax.optimization_barrier, (x, w))
  # What is kept from the forward pass may be packed, and stays so until here.
  w = unpacked(w) if isinstance(w, QTensor) else w
  g = g.astype(jnp.float32)
  transpose = _transpose_floats if g_key is None else _transpose_codes
  w_dtype = (g if w_token is None else w_token).dtype
  dx, dw = transpose(spec, g, x, w, w_dtype, g_key)
  db = None
  if bias_token is not None:
    for operand in (w, x) if spec.recipe.bias_in_product else ():
      if isinstance(operand, QTensor):
        scale = operand.scale
        g = g * (_along_last(scale, g) if operand is w else scale)
    db = jnp.sum(g, tuple(range(g.ndim - 1)))
  gradients = (
    None if token is None else _masked(d, mask).astype(token.dtype)
    for d, mask, token in (
      (dx, x_mask, x_token),
      (dw, w_mask, w_token),
      (db, None, bias_token),
    )
  )
  return *gradients, None, None, None


def _masked(gradient, mask):
  return gradient if mask is None else jnp.where(mask, gradient, 0)


def _transpose_floats(spec, g, x, w, w_dtype, g_key):
  """Returns both gradients; one that nobody needs is never computed."""
  del g_key
  dtype = compute.gradient_dtype(spec.recipe, spec.dtype, spec.precision)
  w_values, g_scaled, dx_scale = w, g, None
  in_float32 = compute.on_cpu() and dtype == jnp.float32
  if isinstance(w, QTensor) and w.scale.size > 1:
    w_values, g_scaled = w.qvalue, g * _along_last(w.scale, g)
  elif isinstance(w, QTensor) and in_float32:
    # Exact for ternary codes, and less than g or dx.
    w_values = w if spec.recipe.weights.largest_code == 1 else w.dequantize()
  elif isinstance(w, QTensor):
    # Codes are exact in any float, which their multiples are not. The scale is
    # then part of whatever reads dx.
    w_values, dx_scale = w.qvalue, w.scale.reshape(())
  dx = spec.product.input_gradient(
    g_scaled.astype(dtype),
    w_values if isinstance(w_values, QTensor) else w_values.astype(dtype),
    jax.ShapeDtypeStruct(x.shape, dtype),
    precision=spec.precision,
  )
  if isinstance(x, QTensor) and spec.recipe.backward == "bfloat16":
    g, x = g * x.scale, x.codes  # Likewise.
  dw = spec.product.weight_gradient(
    g.astype(dtype),
    x if isinstance(x, QTensor) else x.astype(dtype),
    jax.ShapeDtypeStruct(w.shape, w_dtype),
    precision=spec.precision,
  )
  return dx if dx_scale is None else dx * dx_scale, dw


def _transpose_codes(spec, g, x, w, w_dtype, g_key):
  """Rounds ``g`` stochastically to int8 and multiplies integers.

  One scale for each row of the result: for dx a token, or an example of a
  convolution, for dw an output.
  """
  del w_dtype
  x_key, w_key = jax.random.split(g_key)
  tokens = GRADIENT.quantize(
    g * _along_last(w.scale, g),
    axes=spec.product.act_axes(GRADIENT, g),
    key=x_key,
  )
  dx = spec.product.input_gradient(
    tokens.qvalue,
    w.qvalue,
    jax.ShapeDtypeStruct(x.shape, jnp.int8),
    precision=None,
  )
  outputs = GRADIENT.quantize(
    g * x.scale, axes=tuple(range(g.ndim - 1)), key=w_key
  )
  dw = spec.product.weight_gradient(
    outputs.qvalue,
    x.qvalue,
    jax.ShapeDtypeStruct(w.shape, jnp.int8),
    precision=None,
  )
  return dx * tokens.scale, dw * _along_last(outputs.scale, dw)


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
