"""The product of one row with packed codes, which are not unpacked for it."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Int8, Int32

from bitnet_jax.ops import compute
from bitnet_jax.ops.packing import LAYOUTS
from bitnet_jax.types import Packed


def suits(x: Array, w: Packed) -> bool:
  """Whether ``dot_one_row`` is how to multiply these, traced for a CPU.

  A single row is read from memory faster than it is computed with: 2 bits a
  weight, taken apart in registers, instead of 8 that were written before.
  """
  return (
    compute.on_cpu()
    and x.dtype == jnp.int8
    and math.prod(x.shape[:-1]) == 1
    and (w.layout, w.axis, w.ndim) == ("quad", -2, 2)
  )


def dot_one_row(x: Int8[Array, "*ones k"], w: Packed) -> Int32[Array, "..."]:
  """Multiplies one row with packed codes [k, n], exactly.

  A byte holds four neighbours along k, each one more than its code, so that
  ``y = sum_k x[k] * digit[k] - sum_k x[k]``. Four products of an int8 with a
  digit of at most 2 fit 16 bits, of which a register holds twice as many.
  """
  layout = LAYOUTS[w.layout]
  k, n = w.shape
  row = jnp.pad(x.reshape(k), (0, -k % layout.codes))
  parts = row.reshape(-1, layout.codes).astype(jnp.int16)
  sums = jnp.zeros(w.data.shape, jnp.int16)
  for i in range(layout.codes):
    digits = (w.data >> (2 * i)) & (layout.base - 1)
    sums += parts[:, i, None] * digits.astype(jnp.int16)
  y = jnp.sum(sums, axis=0, dtype=jnp.int32) - jnp.sum(row, dtype=jnp.int32)
  return y.reshape(*x.shape[:-1], n)
