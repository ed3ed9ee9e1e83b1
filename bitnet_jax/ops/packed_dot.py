"""Products of few rows with packed codes, which are not unpacked for them."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Int8, Int32

from bitnet_jax import backend
from bitnet_jax.ops import compute, kernels, packed_dot_tpu
from bitnet_jax.ops.packing import LAYOUTS
from bitnet_jax.types import Packed

# Beyond so many rows, unpacked codes are multiplied as fast by XLA.
MOST_ROWS_OF_KERNEL = 32


def suits(x: Array, w: Packed) -> bool:
  """Whether ``dot`` is how to multiply these.

  A few rows are computed with faster than weights are read from memory: 2 bits
  each, taken apart in registers, instead of 8 that were written before.
  """
  rows = math.prod(x.shape[:-1])
  if (
    not isinstance(rows, int)  # Of a program for batches of any size.
    or x.dtype != jnp.int8
    or (w.layout, w.axis, w.ndim) != ("quad", -2, 2)
  ):
    return False
  if _on_tpu():
    return packed_dot_tpu.suits(rows, *w.shape)
  if not compute.on_cpu():
    return False
  most = MOST_ROWS_OF_KERNEL if kernels.may_be_used() else 1
  return 1 <= rows <= most


def dot(x: Int8[Array, "*few k"], w: Packed) -> Int32[Array, "..."]:
  """Multiplies few rows with packed codes [k, n], exactly."""
  rows = x.reshape(-1, x.shape[-1])
  if _on_tpu():
    y = packed_dot_tpu.packed_dot(rows, w.data)
  elif kernels.may_be_used():
    y = kernels.packed_dot(rows, w.data)
  else:
    y = _dot_one_row(rows[0], w)
  return y.reshape(*x.shape[:-1], w.shape[-1])


def _on_tpu() -> bool:
  """Whether programs may use the kernel for TPU, and are traced for one."""
  return backend.current() == "tpu" and not kernels.is_portable()


def _dot_one_row(row: Int8[Array, "k"], w: Packed) -> Int32[Array, "n"]:
  """Multiplies one row in the operations of XLA.

  A byte holds four neighbours along k, each one more than its code, so that
  ``y = sum_k x[k] * digit[k] - sum_k x[k]``. Four products of an int8 with a
  digit of at most 2 fit 16 bits, of which a register holds twice as many.
  """
  layout = LAYOUTS[w.layout]
  row = jnp.pad(row, (0, -len(row) % layout.codes))
  parts = row.reshape(-1, layout.codes).astype(jnp.int16)
  sums = jnp.zeros(w.data.shape, jnp.int16)
  for i in range(layout.codes):
    digits = (w.data >> (2 * i)) & (layout.base - 1)
    sums += parts[:, i, None] * digits.astype(jnp.int16)
  return jnp.sum(sums, axis=0, dtype=jnp.int32) - jnp.sum(row, dtype=jnp.int32)
