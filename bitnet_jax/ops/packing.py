"""Ternary codes in fewer bits: on the wire, in memory and on disk."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int8

from bitnet_jax import choices
from bitnet_jax.types import Packed, QTensor


@dataclasses.dataclass(frozen=True)
class Layout:
  """How neighbouring codes along an axis share a byte.

  Attributes:
    codes: how many do.
    base: the byte is ``sum((code_i + 1) * base ** i)``.
  """

  codes: int
  base: int


LAYOUTS = {
  "quad": Layout(codes=4, base=4),  # Taken apart by shifts.
  "base3": Layout(codes=5, base=3),  # 1.6 bits a code.
}


def pack(
  codes: Int8[Array, "*shape"], layout: str = "quad", axis: int = 0
) -> Packed:
  """Packs ternary codes.

  Neighbours along ``axis`` share a byte. Where the axis is split over devices,
  nothing is exchanged between them if each has a whole number of bytes.

  Args:
    codes: -1, 0 or 1; of other codes nothing sensible is made.
    layout: a name in ``LAYOUTS``: "quad" puts four codes into a byte, "base3"
      five.
    axis: along which; filled with zeros to whole bytes.

  Raises:
    ValueError: for an unknown layout.
  """
  chosen = choices.pick(LAYOUTS, layout, key="layout")
  axis %= codes.ndim
  length = codes.shape[axis]
  fill = [(0, 0)] * codes.ndim
  fill[axis] = (0, -length % chosen.codes)
  digits = (jnp.pad(codes, fill) + 1).astype(jnp.uint8)
  digits = digits.reshape(
    *codes.shape[:axis], -1, chosen.codes, *codes.shape[axis + 1 :]
  )
  powers = [chosen.base**i for i in range(chosen.codes)]
  data = sum(
    jax.lax.index_in_dim(digits, i, axis + 1, keepdims=False) * jnp.uint8(power)
    for i, power in enumerate(powers)
  )
  assert isinstance(data, jax.Array)
  return Packed(data, length, axis - codes.ndim, layout)


def unpack(packed: Packed) -> Int8[Array, "*shape"]:
  """Returns the codes."""
  layout = choices.pick(LAYOUTS, packed.layout, key="layout")
  data, axis = packed.data, packed.axis % packed.ndim
  data = jnp.expand_dims(data, axis + 1)
  places = jax.lax.broadcasted_iota(
    jnp.uint8,
    (*[1] * (axis + 1), layout.codes, *[1] * (data.ndim - axis - 2)),
    axis + 1,
  )
  if layout.base == 4:
    # In int8 throughout, which CPUs do fastest.
    digits = (data.astype(jnp.int8) >> (2 * places.astype(jnp.int8))) & 3
  else:
    digits = data // layout.base**places % layout.base
  codes = digits.astype(jnp.int8) - 1
  shape = (*data.shape[:axis], -1, *data.shape[axis + 2 :])
  return jax.lax.slice_in_dim(codes.reshape(shape), 0, packed.length, axis=axis)


def axis_to_pack(
  shape: Sequence[int], parts: Sequence[int] | None = None
) -> int:
  """Returns the axis of a kernel along which "quad" wastes nothing.

  The contracted one, the last but one, if it holds whole bytes; else another
  that does.

  Args:
    shape: of the codes.
    parts: over how many devices each axis is split; ``None`` for one device.
  """
  parts = parts or [1] * len(shape)
  codes = LAYOUTS["quad"].codes
  order = [len(shape) - 2, len(shape) - 1, *range(len(shape) - 2)]
  whole = [i for i in order if shape[i] % (parts[i] * codes) == 0]
  unsplit = [i for i in order if parts[i] == 1]
  return (whole or unsplit or order)[0]


def unpacked(q: QTensor) -> QTensor:
  """Returns ``q`` with codes that are not packed."""
  if not isinstance(q.qvalue, Packed):
    return q
  return dataclasses.replace(q, qvalue=unpack(q.qvalue))
