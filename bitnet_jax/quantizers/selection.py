"""Exact medians of absolute values, by counting instead of sorting."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bitnet_jax import backend

_ORDERED = {32: jnp.int32, 16: jnp.int16}
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
# The first thresholds, times the mean: the medians of common distributions are
# 0.7 to 1 times their means.
_FRACTIONS_OF_MEAN = (0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
# The next thresholds around the estimate, in widths of the interval. With m
# elements the estimate misses by about sqrt(m) of them, so relatively more if m
# is small.
_OFFSETS = (-1 / 8, -1 / 32, -1 / 128, 0.0, 1 / 128, 1 / 32, 1 / 8)
_ESTIMATES = 3


def magnitude_bits(x: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
  """Maps floats to integers in the order of their absolute values.

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

  Counting the elements below several thresholds narrows an interval of bit
  patterns that contains the element. The first thresholds lie around the mean,
  the next ones around the position that the counts suggest. If this is not
  enough, which is rare, thresholds divide the interval evenly until it is. Each
  pass reads ``x`` once. If ``x`` is sharded, a pass is one all-reduce of a few
  scalars, and nothing is gathered.

  Args:
    x: float32, bfloat16 or float16 array.
    k: rank, from 0, among the elements that are reduced.
    axes: non-negative axes that are reduced.

  Returns:
    Array in the dtype of ``x``, with the reduced axes kept as size 1; NaN where
    any element of the group is NaN or infinite.
  """
  return _select(x, k, axes, backend.is_one_cpu())


# Kernels of one shape are traced once. What the trace reads is an argument.
@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _select(x, k, axes, in_one_pass):
  """See ``kth_smallest_magnitude``."""
  patterns = _Patterns(x, axes, in_one_pass)
  mean = jnp.mean(jnp.abs(x.astype(jnp.float32)), axes, keepdims=True)
  n = math.prod(x.shape[i] for i in axes)
  bracket = _Bracket(
    *(jnp.full(mean.shape, v, jnp.int32) for v in (0, patterns.top, 0, n))
  )
  first = jnp.stack([mean * fraction for fraction in _FRACTIONS_OF_MEAN])
  first = magnitude_bits(first.astype(x.dtype)).astype(jnp.int32)
  bracket = patterns.narrow(bracket, k, first)
  for _ in range(_ESTIMATES):
    bracket = patterns.narrow(bracket, k, bracket.cuts_around(k))

  def divide(bracket):
    return patterns.narrow(bracket, k, bracket.even_cuts())

  # The condition avoids a loop, which copies ``x`` even if it runs zero times.
  bracket = jax.lax.cond(
    jnp.all(bracket.is_closed(k)),
    lambda bracket: bracket,
    lambda bracket: jax.lax.while_loop(
      lambda b: ~jnp.all(b.is_closed(k)), divide, bracket
    ),
    bracket,
  )
  return patterns.element(bracket, k)


class _Bracket(NamedTuple):
  """An interval of bit patterns that contains element ``k``, for each group.

  Attributes:
    low: lower end; the element is at least this.
    high: upper end; the element is less than this.
    below_low: number of elements below ``low``, at most ``k``.
    below_high: number of elements below ``high``, more than ``k``.
  """

  low: Int[Array, "..."]
  high: Int[Array, "..."]
  below_low: Int[Array, "..."]
  below_high: Int[Array, "..."]

  def is_closed(self, k):
    """Whether the element is known: the only pattern, the first or the last."""
    only = self.high - self.low == 1
    return only | (self.below_low == k) | (self.below_high == k + 1)

  def cuts_around(self, k):
    """Thresholds around the element's place among evenly spread elements."""
    inside = (self.below_high - self.below_low).astype(jnp.float32)
    place = (k + 0.5 - self.below_low.astype(jnp.float32)) / inside
    return self._at([place + offset for offset in _OFFSETS])

  def even_cuts(self):
    """Thresholds that divide the interval into four."""
    return self._at([jnp.full(self.low.shape, i / 4) for i in (1, 2, 3)])

  def _at(self, places):
    """Patterns at positions from 0 (``low``) to 1 (``high``)."""
    low, high = self.low[None], self.high[None]
    steps = jnp.clip(jnp.stack(places), 0, 1) * (high - low).astype(jnp.float32)
    # Inside the interval, or at its end if no pattern is inside.
    last = jnp.maximum(high - 1, low + 1)
    return jnp.clip(low + steps.astype(jnp.int32), low + 1, last)


class _Patterns:
  """The bit patterns of an array's magnitudes, and passes over them."""

  def __init__(self, x, axes, in_one_pass):
    self._x, self._axes = x, axes
    self._reduction = _reduce_in_one_pass if in_one_pass else _reduce_one_by_one
    self.top = 2 ** (jnp.finfo(x.dtype).bits - 1) - 1

  def _bits(self):
    # Computed again in each pass, so that a pass reads only the array.
    return magnitude_bits(self._x).astype(jnp.int32)

  def narrow(self, bracket, k, cuts):
    """Counts the elements below each threshold; returns the new interval."""
    below = tuple((self._bits() < cut).astype(jnp.int32) for cut in cuts)
    counts = jnp.stack(self._reduce(below, [(jnp.add, 0)] * len(below)))
    is_low = counts <= k
    # Reductions instead of chains of minima, which take XLA exponential time.
    low, below_low = (
      jnp.maximum(jnp.max(jnp.where(is_low, new, 0), 0), old)
      for new, old in ((cuts, bracket.low), (counts, bracket.below_low))
    )
    high, below_high = (
      jnp.minimum(jnp.min(jnp.where(is_low, 2**31 - 1, new), 0), old)
      for new, old in ((cuts, bracket.high), (counts, bracket.below_high))
    )
    return _Bracket(low, high, below_low, below_high)

  def element(self, bracket, k):
    """Returns the element of a closed interval, NaN for a non-finite group."""
    bits = self._bits()
    first, last, largest = self._reduce(
      (
        jnp.where(bits >= bracket.low, bits, self.top),
        jnp.where(bits < bracket.high, bits, 0),
        bits,
      ),
      ((jnp.minimum, self.top), (jnp.maximum, 0), (jnp.maximum, 0)),
    )
    dtype = self._x.dtype
    found = jnp.where(bracket.below_low == k, first, last)
    infinity = magnitude_bits(jnp.array(math.inf, dtype)).astype(jnp.int32)
    found = jnp.where(largest < infinity, found, self.top)  # That is a NaN.
    found = found.astype(_ORDERED[jnp.finfo(dtype).bits])
    return jax.lax.bitcast_convert_type(found, dtype)

  def _reduce(self, operands, operations):
    """Reduces each operand by its (function, start)."""
    functions, starts = zip(*operations, strict=True)
    starts = tuple(jnp.int32(start) for start in starts)
    reduced = self._reduction(operands, starts, functions, self._axes)
    return [jnp.expand_dims(r, self._axes) for r in reduced]


def _reduce_one_by_one(operands, starts, functions, axes):
  """Reduces in a form that XLA partitions, and fuses on GPU and TPU."""
  return [
    jax.lax.reduce(operand, start, function, axes)
    for operand, start, function in zip(
      operands, starts, functions, strict=True
    )
  ]


def _reduce_in_one_pass(operands, starts, functions, axes):
  """Reduces in one pass, ten times faster on CPU than one by one."""

  def combine(left, right):
    return tuple(
      f(a, b) for f, a, b in zip(functions, left, right, strict=True)
    )

  if len(axes) > 1:
    # Rows first, since XLA spreads rows over the cores.
    operands = jax.lax.reduce(operands, starts, combine, axes[-1:])
    axes = axes[:-1]
  return jax.lax.reduce(operands, starts, combine, axes)
