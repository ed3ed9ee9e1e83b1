"""Exact order statistics of absolute values, found by counting, not sorting."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_ORDERED = {32: jnp.int32, 16: jnp.int16}


def magnitude_bits(x: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
  """Maps every float to an integer that orders as its absolute value does.

  With the sign bit cleared, the bit pattern of an IEEE float is an integer
  that grows with the magnitude, subnormals included (a comparison of floats
  would flush those to zero on CPU). Infinity is the largest pattern of a
  number; NaNs lie above it.

  Args:
    x: float32, bfloat16 or float16 array.

  Returns:
    int32 (for 32-bit floats) or int16 (for 16-bit floats) array.

  Raises:
    TypeError: for floats of another width.
  """
  width = jnp.finfo(x.dtype).bits
  if width not in _ORDERED:
    raise TypeError(
      f"absmedian takes float32, bfloat16 or float16, not {x.dtype}"
    )
  bits = jax.lax.bitcast_convert_type(x, _ORDERED[width])
  return bits & jnp.array(2 ** (width - 1) - 1, bits.dtype)


def kth_smallest_magnitude(
  x: Float[Array, "*shape"], k: int, axes: tuple[int, ...]
) -> Float[Array, "..."]:
  """Returns element ``k`` of the sorted ``|x|``, exactly one of the inputs.

  The answer is built from its highest bit down: a bit stays set while at most
  ``k`` elements lie below the candidate. One pass of compare-and-count a bit,
  31 for float32 and 15 for 16-bit floats; under a sharded ``x`` each pass is
  one scalar all-reduce, and nothing is gathered.

  Args:
    x: float32, bfloat16 or float16 array.
    k: rank, from 0, among the elements that are reduced.
    axes: non-negative axes that are reduced.

  Returns:
    Array in the dtype of ``x``, with the reduced axes kept as size 1.
  """
  bits = magnitude_bits(x)
  shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
  top = jnp.finfo(x.dtype).bits - 2

  def add_bit(i, found):
    bit = jnp.left_shift(jnp.ones((), bits.dtype), (top - i).astype(bits.dtype))
    candidate = found | bit
    below = jnp.sum(bits < candidate, axes, dtype=jnp.int32, keepdims=True)
    return jnp.where(below <= k, candidate, found)

  found = jax.lax.fori_loop(0, top + 1, add_bit, jnp.zeros(shape, bits.dtype))
  return jax.lax.bitcast_convert_type(found, x.dtype)


def has_non_finite(x: Float[Array, "*shape"], axes: tuple[int, ...]) -> Array:
  """Says, for each reduced group, whether it holds a NaN or an infinity."""
  bits = magnitude_bits(x)
  infinity = magnitude_bits(jnp.array(math.inf, x.dtype))
  return jnp.any(bits >= infinity, axes, keepdims=True)
