"""Matrix products, their gradients, and norms in plain JAX, for any backend.

Each is the textbook version of an operation in ``lowering``, and the last entry
of its table.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.types import QTensor

LARGEST_INT32 = 2**31 - 1
# The number of products of any two int8 codes whose sum fits an int32.
INT8_TERMS = LARGEST_INT32 // 128**2
NORM_EPS = 1e-5


def dot(x: Array, w: Array, *, precision: Any, dtype: Any, **_: Any) -> Array:
  """Returns x [*batch, k] times w [k, n], summed in ``dtype``."""
  contracted = (((x.ndim - 1,), (0,)), ((), ()))
  return jax.lax.dot_general(
    x, w, contracted, precision=precision, preferred_element_type=dtype
  )


def dot_by_input(
  g: Array, w: Array | QTensor, *, precision: Any, **_: Any
) -> Array:
  """Returns g [*batch, n] times the transpose of w [k, n]: the gradient by x.

  Args:
    g: cotangent; or its int8 codes, whose sums are int32.
    w: array of the same dtype; or codes with a single scale, by which the
      result is multiplied: codes are exact in any float.
    precision: precision of the product.
  """
  if isinstance(w, QTensor):
    dx = dot_by_input(g, w.codes.astype(g.dtype), precision=precision)
    return dx * w.scale.reshape(())

  def multiply(part):
    return jax.lax.dot_general(
      g[..., part],
      w[:, part],
      (((g.ndim - 1,), (1,)), ((), ())),
      precision=precision,
      preferred_element_type=_sum_dtype(g),
    )

  terms = w.shape[1] if g.dtype == jnp.int8 else 0
  return sum_in_parts(multiply, terms=terms, most=INT8_TERMS)


def dot_by_weight(
  g: Array,
  x: Array | QTensor,
  *,
  precision: Any,
  transpose: Callable[[Array], Array] | None = None,
  dtype: Any = None,
  **_: Any,
) -> Array:
  """Returns the transpose of x [*batch, k] times g [*batch, n]: [k, n].

  Args:
    g: cotangent; or its int8 codes.
    x: values or codes, which are cast to the dtype of g.
    precision: precision of the product.
    transpose: copies x [rows, k] to [k, rows] first; ``None``: no copy.
    dtype: of the sums; by default int32 for codes if they fit it, else float32.
  """
  dtype = dtype or _sum_dtype(g)

  def multiply(x, g):
    rows = rows_of_x = tuple(range(g.ndim - 1))
    if transpose:
      x, rows_of_x = jax.tree.map(transpose, x), (1,)
    x = x.dequantize() if isinstance(x, QTensor) else x
    return jax.lax.dot_general(
      x.astype(g.dtype),
      g,
      ((rows_of_x, rows), ((), ())),
      precision=precision,
      preferred_element_type=dtype,
    )

  terms = math.prod(g.shape[:-1])
  if dtype != jnp.int32 or not isinstance(terms, int) or terms <= INT8_TERMS:
    return multiply(x, g)
  x, g = jax.tree.map(flat, (x, g))
  return sum_in_parts(
    lambda part: multiply(x[part], g[part]), terms=terms, most=INT8_TERMS
  )


def dot_by_weight_like(
  g: Array, x: Array | QTensor, *, like: jax.ShapeDtypeStruct, **options: Any
) -> Array:
  """Sums over devices in bfloat16, if that is the dtype of ``like``."""
  dtype = like.dtype if like.dtype == jnp.bfloat16 else None
  return dot_by_weight(g, x, dtype=dtype, **options)


def sum_in_parts(
  multiply: Callable[[slice], Array], *, terms: int, most: int
) -> Array:
  """Sums products of slices, whose own sums fit int32, in float32.

  Args:
    multiply: maps a slice of the terms to its sums, int32.
    terms: number of terms.
    most: number of terms that an int32 holds.

  Returns:
    int32 sums of all terms if they fit, else float32 ones.
  """
  if terms <= most:
    return multiply(slice(None))
  parts = (slice(start, start + most) for start in range(0, terms, most))
  first, *rest = (multiply(part).astype(jnp.float32) for part in parts)
  return sum(rest, first)


def flat(x: Array) -> Array:
  """Flattens the leading axes: [rows, columns]."""
  return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _sum_dtype(codes_or_floats):
  return jnp.int32 if codes_or_floats.dtype == jnp.int8 else jnp.float32


def normalize(
  x: Array, norm: str, axes: tuple[int, ...]
) -> tuple[Array, Array | None, Array]:
  """Returns ``(x - mean) * factor``, the mean and the factor, in float32.

  "rms_norm" has no mean. The factor is NaN where squares overflow.
  """
  x32, mean = x.astype(jnp.float32), None
  if norm == "layer_norm":
    mean = jnp.mean(x32, axes, keepdims=True)
    x32 = x32 - mean
  mean_square = jnp.mean(jnp.square(x32), axes, keepdims=True)
  factor = jax.lax.rsqrt(mean_square + NORM_EPS)
  factor = jnp.where(factor > 0, factor, jnp.nan)
  return x32 * factor, mean, factor


def norm_gradient(
  x: Array,
  mean: Array | None,
  factor: Array,
  g: Array,
  *,
  axes: tuple[int, ...],
  **_: Any,
) -> Array:
  """Returns the gradient of ``normalize`` by x.

  The norm is computed again, which is cheaper than storing a second array. The
  mean of ``g * y`` comes from that of ``g * x``, so XLA need not compute ``y``.
  """
  x32 = x.astype(jnp.float32)
  mean_g, mean_gy = 0.0, jnp.mean(g * x32, axes, keepdims=True) * factor
  if mean is not None:
    mean_g = jnp.mean(g, axes, keepdims=True)
    mean_gy = mean_gy - mean * mean_g * factor
    x32 = x32 - mean
  dx = (g - mean_g - x32 * factor * mean_gy) * factor
  return dx.astype(x.dtype)


def quantize_rows(
  x: Array, *, norm: str | None, quantizer: Quantizer
) -> tuple[Array, Array, Array, Array]:
  """Returns codes and scales of normalized rows, and means and factors.

  A norm without them has means of 0 and factors of 1.
  """
  y, mean, factor = x, jnp.zeros_like(x[..., :1]), jnp.ones_like(x[..., :1])
  if norm is not None:
    y, of_layer, factor = normalize(x, norm, (-1,))
    mean = mean if of_layer is None else of_layer
  q = quantizer.quantize(y, axes=(x.ndim - 1,))
  return q.codes, q.scale, mean, factor
