"""Matrix products on CPUs, and the sizes for which each one is faster.

The sizes follow the measurements in docs/performance.md. The functions are
entries in ``lowering`` and take the operands and options of its operations.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import layout
from jaxtyping import Array, Int8, Int32

from bitnet_jax.ops import xla
from bitnet_jax.ops.cpu import kernels
from bitnet_jax.types import LAYOUTS, Packed, QTensor

# From so many columns on a copy is worth it that transposes a float32 array, or
# what a window of a convolution sees, for a product in float32; a copy of other
# codes, or for a product in bfloat16 or int8, always is.
MIN_COLUMNS_COPIED = 128
# From so many columns and terms on the kernel that looks sums up is faster than
# XLA's product of float32 and ternary codes, also for few rows (in jax 0.12).
MIN_COLUMNS_LOOKED_UP = 8
# From so many rows, columns of codes and outputs on the kernel that sums
# integers is faster than XLA, which multiplies float32.
MIN_ROWS_SUMMED = 64
MIN_COLUMNS_SUMMED = 16
MIN_OUTPUTS_SUMMED = 8
# With more rows than this, XLA multiplies unpacked codes as fast.
MOST_PACKED_ROWS = 32


def is_int8_row(x: Array, w: Array, **_: Any) -> bool:
  """Whether a single row of codes is multiplied."""
  return x.dtype == jnp.int8 and math.prod(x.shape[:-1]) == 1


def padded_row(x: Array, w: Array, **options: Any) -> Array:
  """Multiplies a second row, of zeros, too.

  XLA has no fast int8 product of a single row: two are ten times faster.
  """
  two = jnp.pad(x.reshape(1, -1), ((0, 1), (0, 0)))
  return xla.dot(two, w, **options)[0].reshape(*x.shape[:-1], -1)


def flat(x: Array, w: Array, **options: Any) -> Array:
  """Multiplies rows without batch axes, so that gradients contract one axis.

  Where several are contracted, XLA copies an operand and multiplies the copy
  slower.
  """
  return xla.dot(xla.flat(x), w, **options).reshape(*x.shape[:-1], w.shape[-1])


def is_scaled(g: Array, w: Array | QTensor, **_: Any) -> bool:
  """Whether weights are codes with a scale, and the product is in float32.

  Then the scaled codes are less to compute than scaled results.
  """
  return isinstance(w, QTensor) and g.dtype == jnp.float32


def looks_up(g: Array, w: Any, *, ternary: bool = True, **_: Any) -> bool:
  """Whether the lookup kernel is faster."""
  return (
    is_scaled(g, w)
    and ternary
    and w.codes.dtype == jnp.int8
    and min(w.shape[-2:]) >= MIN_COLUMNS_LOOKED_UP
  )


def look_up(
  g: Array, w: QTensor, *, like: jax.ShapeDtypeStruct, **_: Any
) -> Array:
  """Looks up the sums of the gradient by x."""
  scale = w.scale.reshape(()).astype(jnp.float32)
  return kernels.ternary_dot(xla.flat(g), w.codes, scale).reshape(like.shape)


def sums_up(
  g: Array,
  x: Array | QTensor,
  *,
  min_columns: int = MIN_COLUMNS_SUMMED,
  **_: Any,
) -> bool:
  """Whether the integer kernel is faster."""
  codes = x.codes if isinstance(x, QTensor) else x
  return (
    codes.dtype == jnp.int8
    and g.dtype == jnp.float32
    and math.prod(g.shape[:-1]) >= MIN_ROWS_SUMMED
    and codes.shape[-1] >= min_columns
    and g.shape[-1] >= MIN_OUTPUTS_SUMMED
  )


def sum_up(g: Array, x: Array | QTensor, **_: Any) -> Array:
  """Sums the gradient by w as integers."""
  g, x = _rows(g, x)
  codes, scale = x, jnp.ones((1,), jnp.float32)
  if isinstance(x, QTensor):
    codes, scale = x.codes, x.scale[:, 0].astype(jnp.float32)
  return kernels.transposed_dot(codes, scale, g)


def is_copied(g: Array, x: Array | QTensor, **_: Any) -> bool:
  """Whether a transposed copy of x is worth it.

  XLA multiplies a transposed operand as float32, whatever it is, and not at its
  fastest.
  """
  is_float32 = not isinstance(x, QTensor) and g.dtype == jnp.float32
  return not is_float32 or x.shape[-1] >= MIN_COLUMNS_COPIED


def by_weight_copied(g: Array, x: Array | QTensor, **options: Any) -> Array:
  """Multiplies a transposed copy of x."""
  return xla.dot_by_weight(*_rows(g, x), transpose=_transposed, **options)


def by_weight_flat(g: Array, x: Array | QTensor, **options: Any) -> Array:
  """Contracts one axis; see ``flat``."""
  return xla.dot_by_weight(*_rows(g, x), **options)


def _rows(g, x):
  """Flattens both; each row gets the scale that it shares with others."""
  if isinstance(x, QTensor):
    x = QTensor(x.qvalue, jnp.broadcast_to(x.scale, (*x.shape[:-1], 1)))
  return xla.flat(g), jax.tree.map(xla.flat, x)


def _transposed(x):
  """Transposes a matrix in memory, before what follows."""
  x = layout.with_layout_constraint(x.T, layout.Layout((0, 1)))
  return jax.lax.optimization_barrier(x)


def is_packed(x: Array, w: Packed, *, most: int = 1, **_: Any) -> bool:
  """Whether at most ``most`` rows are multiplied with packed codes.

  A few are computed with faster than weights are read from memory: 2 bits each,
  taken apart in registers, instead of 8 that were written before.
  """
  rows = math.prod(x.shape[:-1])  # No integer for batches of any size.
  return w.is_quad_matrix and isinstance(rows, int) and 1 <= rows <= most


def packed(
  x: Int8[Array, "*few k"], w: Packed, **_: Any
) -> Int32[Array, "..."]:
  """Multiplies few rows with packed codes [k, n], exactly."""
  y = kernels.packed_dot(x.reshape(-1, x.shape[-1]), w.data, w.index)
  return y.reshape(*x.shape[:-1], w.shape[-1])


def packed_row(
  x: Int8[Array, "*few k"], w: Packed, **_: Any
) -> Int32[Array, "..."]:
  """Multiplies one row in the operations of XLA.

  A byte holds four neighbours along k, each one more than its code, so that
  ``y = sum_k x[k] * digit[k] - sum_k x[k]``. Four products of an int8 with a
  digit of at most 2 fit 16 bits, of which a register holds twice as many.
  """
  layout, row, w = LAYOUTS[w.layout], x.reshape(-1), w.alone()
  row = jnp.pad(row, (0, -len(row) % layout.codes))
  parts = row.reshape(-1, layout.codes).astype(jnp.int16)
  sums = jnp.zeros(w.data.shape, jnp.int16)
  for i in range(layout.codes):
    digits = (w.data >> (2 * i)) & (layout.base - 1)
    sums += parts[:, i, None] * digits.astype(jnp.int16)
  y = jnp.sum(sums, axis=0, dtype=jnp.int32) - jnp.sum(row, dtype=jnp.int32)
  return y.reshape(*x.shape[:-1], w.shape[-1])
