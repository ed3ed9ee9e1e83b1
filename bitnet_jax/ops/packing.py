"""Packs ternary codes, four or five to a byte."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int8

from bitnet_jax import choices
from bitnet_jax.types import LAYOUTS, Packed, QTensor


def pack(
  codes: Int8[Array, "*shape"], layout: str = "quad", axis: int = 0
) -> Packed:
  """Packs ternary codes.

  Neighbours along ``axis`` share a byte. If the axis is sharded, no
  communication is needed if each device has a whole number of bytes.

  Args:
    codes: -1, 0 or 1; other codes give undefined results.
    layout: a name in ``LAYOUTS``: "quad" puts four codes into a byte, "base3"
      five.
    axis: the axis to pack; padded with zeros to whole bytes.

  Raises:
    ValueError: for an unknown layout.

  Example:
    >>> import jax
    >>> from bitnet_jax.ops import pack
    >>> codes = jax.numpy.zeros((10, 3), "int8")
    >>> pack(codes).data.shape, pack(codes, "base3").data.shape
    ((3, 3), (2, 3))
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
  """Unpacks ternary codes to int8.

  Example:
    >>> import jax
    >>> from bitnet_jax.ops import pack, unpack
    >>> codes = jax.numpy.array([1, 0, -1, 1, 0], "int8")
    >>> unpack(pack(codes)).tolist()
    [1, 0, -1, 1, 0]
  """
  choices.check(packed.layout, LAYOUTS, key="layout")
  return packed.unpack()


def axis_to_pack(
  shape: Sequence[int],
  parts: Sequence[int] | None = None,
  stack: Sequence[int] = (),
) -> int | None:
  """Returns the axis of a kernel along which "quad" wastes nothing.

  The contracted one, the last but one, if it holds whole bytes; else another
  that does.

  Args:
    shape: shape of the codes.
    parts: over how many devices each axis is split; ``None`` for one device.
    stack: axes that number kernels. None of them is packed, nor an axis with
      some of them on either side: it would have no number that is right for
      the stack and for each of its kernels.

  Returns:
    The axis; ``None`` if there is none.
  """
  parts = parts or [1] * len(shape)
  codes = LAYOUTS["quad"].codes
  own = [i for i in range(len(shape)) if i not in stack]
  order = [
    i
    for i in (*own[-2:], *own[:-2])
    if all(s < i for s in stack) or all(s > i for s in stack)
  ]
  whole = [i for i in order if shape[i] % (parts[i] * codes) == 0]
  unsplit = [i for i in order if parts[i] == 1]
  return next(iter(whole or unsplit or order), None)


def pack_kernel(
  codes: Int8[Array, "*shape"],
  *,
  parts: Sequence[int] | None = None,
  stack: Sequence[int] = (),
) -> Packed | Int8[Array, "*shape"]:
  """Packs the codes of a kernel, or a stack of kernels, in the layout "quad".

  Args:
    codes: -1, 0 or 1.
    parts: see ``axis_to_pack``.
    stack: axes that number the kernels, each of which can be taken out of the
      result.

  Returns:
    The packed codes, or the codes where no axis can be packed.
  """
  axis = axis_to_pack(codes.shape, parts, stack)
  if axis is None:
    return codes
  return pack_along(
    codes, axis if any(s > axis for s in stack) else axis - codes.ndim
  )


def pack_along(codes: Int8[Array, "*shape"], axis: int) -> Packed:
  """Packs ternary codes in the layout "quad"; the axis stays as it is given.

  Counted from the last (negative) or from the first, it is right for codes with
  more axes before it, or after it.
  """
  return dataclasses.replace(pack(codes, axis=axis), axis=axis)


def unpacked(q: QTensor) -> QTensor:
  """Returns ``q`` with codes that are not packed."""
  if not isinstance(q.qvalue, Packed):
    return q
  return dataclasses.replace(q, qvalue=unpack(q.qvalue))
