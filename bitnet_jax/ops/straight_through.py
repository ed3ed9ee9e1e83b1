"""Products of codes with a straight-through gradient (STE).

The gradient treats rounding as the identity (Bengio et al., 1308.3432).
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from bitnet_jax.ops import compute, lowering, xla
from bitnet_jax.ops.cpu.conv import is_slow_in_int8
from bitnet_jax.ops.operands import scale_axes
from bitnet_jax.ops.packing import unpacked
from bitnet_jax.ops.placement import call_sharded_like, shape_like
from bitnet_jax.ops.xla_conv import Window
from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.types import Packed, QTensor

# How a cotangent is rounded under backward="int8". Those of a mean over many
# examples are far below the floor of other operands.
GRADIENT = Quantizer(
  "absmax", (-127, 127), axis=-1, eps=1e-30, rounding="stochastic"
)


@dataclasses.dataclass(frozen=True)
class Spec:
  """The static options of a product.

  Attributes:
    recipe: recipe of its operands.
    window: window of a convolution.
    precision: precision of products with an operand in float.
    dtype: dtype of the result.
  """

  recipe: Recipe
  window: Window | None
  precision: Any
  dtype: Any

  @property
  def product(self) -> lowering.Product:
    """The operations that compute the product and its gradients."""
    return lowering.DOTS if self.window is None else lowering.CONVS

  def options(self, **others: Any) -> dict[str, Any]:
    """Returns options of the operations."""
    return {"window": self.window, **others}

  def token_axes(self, ndim: int) -> tuple[int, ...]:
    """Returns the axes of one token; of a convolution, of one example."""
    return (ndim - 1,) if self.window is None else tuple(range(1, ndim))


def along_last(v: Array, y: Array) -> Array:
  """Reshapes a vector, or a scale of one entry, to broadcast over ``y``."""
  return v.reshape((1,) * (y.ndim - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def straight_through_product(spec, x, w, bias, qx, qw, g_key):
  """Float32 product of the codes; gradients go to ``x``, ``w`` and ``bias``."""
  a, b, options = _factors(spec, x, w, qx, qw)
  if options["dtype"] == jnp.int32 and _terms(b) > _most_terms(spec):
    y = _in_parts(spec, a, b, options)
  elif isinstance(b, Packed):
    y = lowering.PACKED_DOT(a, b, **options)
  else:
    y = spec.product.forward(a, b, **options)
  y = y.astype(jnp.float32)
  scales = [qx.scale] if qx is not None else []
  scales += [along_last(qw.scale, y)] if qw is not None else []
  first, last = None, bias
  if bias is not None:
    last = along_last(bias.astype(jnp.float32), y)
  if spec.recipe.bias_in_product:
    first, last = last, None
  y = y if first is None else y + first
  for scale in scales:
    y = y * scale
  # A zero that compilers cannot fold. Without it they may fuse the last product
  # with a following addition, and differently for int8 and float.
  y = y + (scales[-1] - scales[-1])
  return y if last is None else y + last


def _factors(spec, x, w, qx, qw):
  """Returns the factors of the product and their dtype."""
  a = x if qx is None else qx.codes
  if qx is None or qw is None:
    # Scales and gradients are in float32, whatever the dtype of the result.
    is_wide = jnp.dtype(spec.dtype).itemsize > 4
    dtype = jnp.float32 if is_wide else spec.dtype
    b = w if qw is None else qw.codes
    options = spec.options(precision=spec.precision, dtype=jnp.float32)
    return a.astype(dtype), b.astype(dtype), options
  chosen = compute.choose_compute(
    spec.recipe,
    terms=_terms(qw),
    slow_in_int8=spec.window is not None and is_slow_in_int8(qw, spec.window),
  )
  if chosen == "int8":
    b = qw.qvalue if spec.window is None else qw.codes
    return a, b, spec.options(precision=None, dtype=jnp.int32)
  dtype = compute.float_dtype_of_codes()
  options = spec.options(precision=jax.lax.Precision.HIGHEST, dtype=jnp.float32)
  return a.astype(dtype), qw.codes.astype(dtype), options


def _terms(w):
  """Returns how many products are summed in one output element."""
  return math.prod(w.shape[:-1])


def _most_terms(spec):
  """Returns how many products of codes an int32 holds."""
  return xla.LARGEST_INT32 // compute.largest_sum(spec.recipe, 1)


def _in_parts(spec, a, b, options):
  """Multiplies codes whose sums could exceed an int32 in parts."""
  b = b.unpack() if isinstance(b, Packed) else b
  terms, channels = _terms(b), b.shape[-2]
  most, window = _most_terms(spec), terms // channels
  if a.shape[-1] != channels or window > most:
    raise ValueError(
      f"an output sums {terms} products, which int32 holds for at most {most}"
      " terms of this recipe; that many may be in a group of channels, or in"
      " the window of one channel, of a convolution"
    )
  return xla.sum_in_parts(
    lambda part: spec.product.forward(a[..., part], b[..., part, :], **options),
    terms=channels,
    most=most // window,
  )


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


def _gradient_masks(spec, x, w):
  """For the clipped estimator, where each rounded operand was in range."""

  def in_range(quantizer, array, axes):
    if spec.recipe.ste == "identity" or quantizer is None or array is None:
      return None
    axes = scale_axes(quantizer, array.ndim, axes(array.ndim))
    return quantizer.in_range(array, axes=axes)

  return (
    in_range(spec.recipe.acts, x, spec.token_axes),
    in_range(spec.recipe.weights, w, lambda ndim: range(ndim - 1)),
  )


@jax.custom_jvp
def _token(operand):
  """Returns an empty residual with the dtype of an operand.

  The cotangent must have this dtype. The token has a tangent if the operand is
  differentiated.
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


def _backward(spec, residuals, g):
  x, w, x_mask, w_mask, tokens, wanted, g_key = residuals
  if isinstance(g, SymbolicZero):
    return (None,) * 6
  x_token, w_token, _ = tokens
  x_wanted, w_wanted, bias_wanted = (p is not None for p in wanted)
  if compute.on_cpu():
    # Otherwise XLA stores the floats and quantizes again in each product.
    x, w = map(jax.lax.optimization_barrier, (x, w))
  # Residuals may be packed, and stay packed until here.
  w = unpacked(w) if isinstance(w, QTensor) else w
  g = g.astype(jnp.float32)
  in_int8 = spec.recipe.backward == "int8"
  transpose = _transpose_codes if in_int8 else _transpose_floats
  w_dtype = (g if w_token is None else w_token).dtype
  # The codes of either operand are a factor of the gradient by the other.
  gs = tuple(
    _refuse_derivatives(g, token) if refused and isinstance(a, QTensor) else g
    for refused, a, token in ((x_wanted, w, w_token), (w_wanted, x, x_token))
  )
  dx, dw = transpose(spec, gs, x, w, w_dtype, g_key)
  db = None
  if bias_wanted:
    for operand in (w, x) if spec.recipe.bias_in_product else ():
      if isinstance(operand, QTensor):
        scale = operand.scale
        g = g * (along_last(scale, g) if operand is w else scale)
    db = jnp.sum(g, tuple(range(g.ndim - 1)))
  gradients: list[Any] = [dx, dw, db]
  for i, mask in enumerate((x_mask, w_mask, None)):
    if wanted[i] is None:
      gradients[i] = None
      continue
    if mask is not None:
      gradients[i] = jnp.where(mask, gradients[i], 0)
    gradients[i] = gradients[i].astype(tokens[i].dtype)
  return *gradients, None, None, None


def _transpose_floats(spec, gs, x, w, w_dtype, g_key):
  """Returns the gradients by ``x`` and by ``w``.

  Args:
    spec: options of the product.
    gs: the cotangent, once for each gradient.
    x: residual of the input, codes or floats.
    w: residual of the weights, codes or floats.
    w_dtype: dtype of the latent weights.
    g_key: unused.
  """
  del g_key
  g_of_x, g = gs
  dtype = compute.gradient_dtype(spec.recipe, spec.dtype, spec.precision)
  w_values = w
  if isinstance(w, QTensor) and w.scale.size > 1:
    w_values, g_of_x = w.codes, g_of_x * along_last(w.scale, g_of_x)
  if not isinstance(w_values, QTensor):
    w_values = w_values.astype(dtype)
  product, g_of_x = spec.product, g_of_x.astype(dtype)
  dx = _gradient(spec, product.by_input, g_of_x, w_values, x, dtype)
  if isinstance(x, QTensor) and spec.recipe.backward == "bfloat16":
    g, x = g * x.scale, x.codes  # Codes are exact in it; multiples are not.
  x, g = x if isinstance(x, QTensor) else x.astype(dtype), g.astype(dtype)
  return dx, _gradient(spec, product.by_weight, g, x, w, w_dtype)


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
    axes=spec.token_axes(g_of_x.ndim),
    key=x_key,
  )
  product = spec.product
  dx = _gradient(spec, product.by_input, tokens.codes, w.codes, x, jnp.int8)
  outputs = GRADIENT.quantize(
    g * x.scale, axes=tuple(range(g.ndim - 1)), key=w_key
  )
  dw = _gradient(spec, product.by_weight, outputs.codes, x.codes, w, jnp.int8)
  return dx * tokens.scale, dw * along_last(outputs.scale, dw)


def _gradient(spec, operation, g, other, like, dtype):
  """Runs the operation; the result has shape and sharding of an operand."""
  weights = spec.recipe.weights
  ternary = weights is not None and weights.largest_code == 1
  options = spec.options(precision=spec.precision, ternary=ternary)

  def run(g, other, like):
    return operation(g, other, like=shape_like(like, dtype), **options)

  like = like.codes if isinstance(like, QTensor) else like
  return call_sharded_like(like, run, g, other, like)


straight_through_product.defvjp(_forward, _backward, symbolic_zeros=True)
