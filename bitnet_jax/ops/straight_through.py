"""The product of codes with a straight-through gradient.

The gradient takes the rounding for the identity (Bengio et al., 1308.3432).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from bitnet_jax.ops import compute
from bitnet_jax.ops.packing import unpack, unpacked
from bitnet_jax.ops.placement import call_sharded_like, shape_like
from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.types import Packed, QTensor

# How a cotangent is rounded under backward="int8". Those of a mean over many
# examples are far below the floor of other operands.
GRADIENT = Quantizer(
  "absmax", (-127, 127), axis=-1, eps=1e-30, rounding="stochastic"
)


def along_last(v: Array, y: Array) -> Array:
  """Reshapes a vector, or a scale of one entry, to broadcast over ``y``."""
  return v.reshape((1,) * (y.ndim - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def straight_through_product(spec, x, w, bias, qx, qw, g_key):
  """Float32 product of the codes; gradients go to ``x``, ``w`` and ``bias``."""
  return _multiply(spec, x, w, bias, qx, qw)


def _multiply(spec, x, w, bias, qx, qw):
  y = _product_of_codes(spec, x, w, qx, qw)
  scales = [qx.scale] if qx is not None else []
  scales += [along_last(qw.scale, y)] if qw is not None else []
  bias32: Any = None
  if bias is not None:
    bias32 = along_last(bias.astype(jnp.float32), y)
  if bias is not None and spec.recipe.bias_in_product:
    y = y + bias32
  for scale in scales:
    y = y * scale
  # A zero that compilers cannot fold: else they may contract the last product
  # with an addition that follows, and need not do so for both computes alike.
  y = y + (scales[-1] - scales[-1])
  if bias is not None and not spec.recipe.bias_in_product:
    y = y + bias32
  return y


def _forward(spec, *primals):
  """Returns the product and its residuals."""
  values = jax.tree.map(lambda p: p.value, primals)
  x, w, bias, qx, qw, g_key = values
  residuals = (
    x if qx is None else qx,
    w if qw is None else qw,
    *_gradient_masks(spec, x, w),
    tuple(None if a is None else _token(a) for a in (x, w, bias)),
    # Trees without arrays, since residuals hold nothing else that is static.
    tuple(() if p is not None and p.perturbed else None for p in primals[:3]),
    g_key,
  )
  # Not its body, whose derivative is zero: this one may be differentiated, too.
  return straight_through_product(spec, *values), residuals


@jax.custom_jvp
def _token(operand):
  """Tells the backward pass what codes do not, in no bytes.

  That is the dtype of an operand, which its cotangent must have, and whether
  the operand itself is differentiated: then the token has a tangent.
  """
  return jnp.zeros((0,), operand.dtype)


@_token.defjvp
def _token_jvp(primals, tangents):
  return _token(*primals), tangents[0].reshape(-1)[:0]


@jax.custom_jvp
def _refuse_derivatives(g, by):
  """Returns ``g``; raises a TypeError where ``by`` is differentiated."""
  del by
  return g


@functools.partial(_refuse_derivatives.defjvp, symbolic_zeros=True)
def _refuse_derivatives_jvp(primals, tangents):
  g_tangent, *by_tangents = jax.tree.leaves(
    tangents, is_leaf=lambda t: isinstance(t, SymbolicZero)
  )
  if not all(isinstance(t, SymbolicZero) for t in by_tangents):
    raise TypeError(
      "a quantized product cannot be differentiated twice: its residuals are"
      " integer codes. Pass strength=1.0 to compute the same product in float,"
      " with straight-through derivatives of any order"
    )
  g = primals[0]
  if isinstance(g_tangent, SymbolicZero):
    g_tangent = jnp.zeros_like(g)
  return g, g_tangent


def _product_of_codes(spec, x, w, qx, qw):
  """The product before the scales, in float32."""
  if qx is None or qw is None:
    # Scales and gradients are in float32, whatever the dtype of the result.
    is_wide = jnp.dtype(spec.dtype).itemsize > 4
    dtype = jnp.float32 if is_wide else spec.dtype
    a = x if qx is None else qx.codes
    b = w if qw is None else unpacked(qw).codes
    return spec.product(
      a.astype(dtype),
      b.astype(dtype),
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
    return _sum_integers(spec, a, b)
  codes_dtype = compute.float_dtype_of_codes()
  return spec.product(
    a.astype(codes_dtype),
    unpacked(qw).codes.astype(codes_dtype),
    precision=jax.lax.Precision.HIGHEST,
    dtype=jnp.float32,
  )


def _sum_integers(spec, a, b):
  """Multiplies codes into int32; in parts where a sum could exceed that."""
  product = functools.partial(spec.product, precision=None, dtype=jnp.int32)
  terms, channels = spec.product.terms(b), b.shape[-2]
  most = compute.LARGEST_INT32 // compute.largest_sum(spec.recipe, 1)
  if terms <= most:
    return product(a, b).astype(jnp.float32)
  window = terms // channels
  if a.shape[-1] != channels or window > most:
    raise ValueError(
      f"an output sums {terms} products, which int32 holds for at most {most}"
      " terms of this recipe; that many may be in a group of channels, or in"
      " the window of one channel, of a convolution"
    )
  b = unpack(b) if isinstance(b, Packed) else b
  return compute.sum_in_parts(
    lambda part: product(a[..., part], b[..., part, :]),
    terms=channels,
    most=most // window,
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
  x, w, x_mask, w_mask, tokens, wanted, g_key = residuals
  if isinstance(g, SymbolicZero):
    return (None,) * 6
  x_token, w_token, bias_token = tokens
  x_wanted, w_wanted, bias_wanted = (p is not None for p in wanted)
  if compute.on_cpu():
    # Else XLA quantizes anew in each product, out of floats that it keeps.
    x, w = map(jax.lax.optimization_barrier, (x, w))
  # What is kept from the forward pass may be packed, and stays so until here.
  w = unpacked(w) if isinstance(w, QTensor) else w
  g = g.astype(jnp.float32)
  in_int8 = spec.recipe.backward == "int8"
  transpose = _transpose_codes if in_int8 else _transpose_floats
  w_dtype = (g if w_token is None else w_token).dtype
  # The codes of either operand are a factor of the gradient by the other.
  gs = tuple(
    _refuse_derivatives(g, token)
    if is_wanted and isinstance(other, QTensor)
    else g
    for is_wanted, other, token in (
      (x_wanted, w, w_token),
      (w_wanted, x, x_token),
    )
  )
  dx, dw = transpose(spec, gs, x, w, w_dtype, g_key)
  db = None
  if bias_wanted:
    for operand in (w, x) if spec.recipe.bias_in_product else ():
      if isinstance(operand, QTensor):
        scale = operand.scale
        g = g * (along_last(scale, g) if operand is w else scale)
    db = jnp.sum(g, tuple(range(g.ndim - 1)))
  gradients = (
    _masked(d, mask).astype(token.dtype) if is_wanted else None
    for d, mask, token, is_wanted in (
      (dx, x_mask, x_token, x_wanted),
      (dw, w_mask, w_token, w_wanted),
      (db, None, bias_token, bias_wanted),
    )
  )
  return *gradients, None, None, None


def _masked(gradient, mask):
  return gradient if mask is None else jnp.where(mask, gradient, 0)


def _transpose_floats(spec, gs, x, w, w_dtype, g_key):
  """Returns the gradients by ``x`` and by ``w``.

  Args:
    spec: of the product.
    gs: the cotangent, once for each of them.
    x: residual of the input, codes or floats.
    w: residual of the weights, likewise.
    w_dtype: dtype of the latent weights.
    g_key: for rounding the cotangent, which this does not.
  """
  del g_key
  g_of_x, g = gs
  dtype = compute.gradient_dtype(spec.recipe, spec.dtype, spec.precision)
  w_values, g_scaled, dx_scale = w, g_of_x, None
  in_float32 = compute.on_cpu() and dtype == jnp.float32
  if isinstance(w, QTensor) and w.scale.size > 1:
    w_values, g_scaled = w.qvalue, g_of_x * along_last(w.scale, g_of_x)
  elif isinstance(w, QTensor) and in_float32:
    # Exact for ternary codes, and less than g or dx.
    w_values = w if spec.recipe.weights.largest_code == 1 else w.dequantize()
  elif isinstance(w, QTensor):
    # Codes are exact in any float, which their multiples are not. The scale is
    # then part of whatever reads dx.
    w_values, dx_scale = w.qvalue, w.scale.reshape(())
  dx = _by_input(
    spec,
    g_scaled.astype(dtype),
    w_values if isinstance(w_values, QTensor) else w_values.astype(dtype),
    x,
    dtype,
  )
  if isinstance(x, QTensor) and spec.recipe.backward == "bfloat16":
    g, x = g * x.scale, x.codes  # Likewise.
  dw = _by_weight(
    spec,
    g.astype(dtype),
    x if isinstance(x, QTensor) else x.astype(dtype),
    w,
    w_dtype,
  )
  return dx if dx_scale is None else dx * dx_scale, dw


def _transpose_codes(spec, gs, x, w, w_dtype, g_key):
  """Rounds the cotangent stochastically to int8 and multiplies integers.

  One scale for each row of the result: for dx a token, or an example of a
  convolution, for dw an output. Arguments are those of ``_transpose_floats``.

  Raises:
    ValueError: without a key.
  """
  del w_dtype
  if g_key is None:
    raise ValueError(
      "backward='int8' rounds the cotangent stochastically, which needs a key;"
      " none was given"
    )
  # What is rounded has no derivative.
  g_of_x, g = (_refuse_derivatives(g, g) for g in gs)
  x_key, w_key = jax.random.split(g_key)
  tokens = GRADIENT.quantize(
    g_of_x * along_last(w.scale, g_of_x),
    axes=spec.product.act_axes(GRADIENT, g_of_x),
    key=x_key,
  )
  dx = _by_input(spec, tokens.qvalue, w.qvalue, x, jnp.int8)
  outputs = GRADIENT.quantize(
    g * x.scale, axes=tuple(range(g.ndim - 1)), key=w_key
  )
  dw = _by_weight(spec, outputs.qvalue, x.qvalue, w, jnp.int8)
  return dx * tokens.scale, dw * along_last(outputs.scale, dw)


def _by_input(spec, g, w, x, dtype):
  """Returns the gradient by ``x``, sharded as that is."""
  gradient = functools.partial(
    spec.product.input_gradient, precision=spec.precision
  )
  x = x.codes if isinstance(x, QTensor) else x
  return call_sharded_like(
    x, lambda g, w, x: gradient(g, w, shape_like(x, dtype)), g, w, x
  )


def _by_weight(spec, g, x, w, dtype):
  """Returns the gradient by ``w``, likewise."""
  gradient = functools.partial(
    spec.product.weight_gradient, precision=spec.precision
  )
  w = w.codes if isinstance(w, QTensor) else w
  return call_sharded_like(
    w, lambda g, x, w: gradient(g, x, shape_like(w, dtype)), g, x, w
  )


straight_through_product.defvjp(_forward, _backward, symbolic_zeros=True)
