"""Products with packed codes on TPU: 2 bits a weight until they are in VMEM.

A byte holds four neighbours along the contracted axis. They are not put next to
each other again, which would move them between sublanes; the columns of ``x``
are sorted by their place in the byte instead, which is cheap for few rows.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Int8, Int32, UInt8

from bitnet_jax.types import LAYOUTS, Packed

_CODES = LAYOUTS["quad"].codes
# Smallest tiles of 8-bit values: sublanes and lanes.
SUBLANES, LANES = 32, 128
# Largest blocks, which leave room in VMEM for two of each.
_ROWS, _BYTES, _COLUMNS = 128, 512, 512
MOST_ROWS = 256


def suits(rows: int, k: int, n: int) -> bool:
  """Whether ``packed_dot`` takes such a product: few rows, whole tiles."""
  return 1 <= rows <= MOST_ROWS and k % (_CODES * LANES) == 0 and n % LANES == 0


def supports(x: Array, w: Packed, **options: Any) -> bool:
  """Whether ``run`` takes these, and is the faster for them."""
  rows = math.prod(x.shape[:-1])
  is_known = isinstance(rows, int)  # Not in a program for batches of any size.
  return is_known and w.is_quad_matrix and suits(rows, *w.shape)


def run(
  x: Int8[Array, "*few k"],
  w: Packed,
  *,
  interpret: bool = False,
  **options: Any,
) -> Array:
  """Multiplies few rows with packed codes [k, n], exactly."""
  data = w.alone().data
  y = packed_dot(x.reshape(-1, x.shape[-1]), data, interpret=interpret)
  return y.reshape(*x.shape[:-1], w.shape[-1])


def packed_dot(
  x: Int8[Array, "m k"],
  data: UInt8[Array, "quads n"],
  *,
  interpret: bool = False,
) -> Int32[Array, "m n"]:
  """Multiplies rows with packed codes, exactly.

  Args:
    x: rows; ``k`` is four times ``quads``.
    data: of ``Packed`` in the layout "quad", packed along its first axis.
    interpret: whether to run on any backend, for tests.
  """
  m, (quads, n) = len(x), data.shape
  rows = min(-(-m // SUBLANES) * SUBLANES, _ROWS)
  padded = jnp.pad(x, ((0, -m % rows), (0, 0)))
  # [place in the byte, rows, bytes]
  sorted_x = padded.reshape(-1, quads, _CODES).transpose(2, 0, 1)
  block_bytes = _largest_divisor(quads, _BYTES)
  block_columns = _largest_divisor(n, _COLUMNS)
  y = pl.pallas_call(
    _kernel,
    out_shape=jax.ShapeDtypeStruct((padded.shape[0], n), jnp.int32),
    grid=(padded.shape[0] // rows, n // block_columns, quads // block_bytes),
    in_specs=[
      pl.BlockSpec((_CODES, rows, block_bytes), lambda i, j, q: (0, i, q)),
      pl.BlockSpec((block_bytes, block_columns), lambda i, j, q: (q, j)),
    ],
    out_specs=pl.BlockSpec((rows, block_columns), lambda i, j, q: (i, j)),
    interpret=interpret,
  )(sorted_x, data)
  # A digit is one more than its code.
  return y[:m] - jnp.sum(x, axis=1, keepdims=True, dtype=jnp.int32)


def _largest_divisor(n: int, most: int) -> int:
  """Returns the largest multiple of ``LANES`` that divides ``n``."""
  return next(s for s in range(most, 0, -LANES) if n % s == 0)


def _kernel(x, data, y):
  """Adds the product of a block of bytes to a block of the output."""

  @pl.when(pl.program_id(2) == 0)
  def _():
    y[...] = jnp.zeros_like(y)

  dot = functools.partial(
    jax.lax.dot_general,
    dimension_numbers=(((1,), (0,)), ((), ())),
    preferred_element_type=jnp.int32,
  )
  wide = data[...].astype(jnp.int32)
  for place in range(_CODES):
    digits = ((wide >> (2 * place)) & 3).astype(jnp.int8)
    y[...] += dot(x[place], digits)
