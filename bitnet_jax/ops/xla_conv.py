"""Convolutions and their gradients, as XLA computes them; see ``xla``."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bitnet_jax.types import QTensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
  """How a window moves: ``x [batch, *space, c_in]`` by ``w [*window, ...]``.

  Attributes:
    strides: of the window.
    padding: "SAME", "VALID", or (low, high) for each spatial axis.
    lhs_dilation: of the input; ``None`` for 1 along each axis.
    rhs_dilation: of the window, likewise.
    groups: of channels.
  """

  strides: tuple[int, ...]
  padding: str | tuple[tuple[int, int], ...]
  lhs_dilation: tuple[int, ...] | None = None
  rhs_dilation: tuple[int, ...] | None = None
  groups: int = 1

  @classmethod
  def of(
    cls,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    groups: int,
  ) -> "Window":
    """Makes one of any sequences."""
    if not isinstance(padding, str):
      padding = tuple((int(low), int(high)) for low, high in padding)
    return cls(
      strides=tuple(strides),
      padding=padding,
      lhs_dilation=None if lhs_dilation is None else tuple(lhs_dilation),
      rhs_dilation=None if rhs_dilation is None else tuple(rhs_dilation),
      groups=groups,
    )

  def pads(
    self, space: Sequence[int], window: Sequence[int]
  ) -> Sequence[tuple[int, int]]:
    """Returns what is added before and after each axis."""
    if not isinstance(self.padding, str):
      return self.padding
    seen, reach = zip(
      *(
        ((n - 1) * of_x + 1, (size - 1) * of_window + 1)
        for n, size, (of_x, of_window) in zip(
          space, window, self.dilations(len(space)), strict=True
        )
      ),
      strict=True,
    )
    return jax.lax.padtype_to_pads(seen, reach, self.strides, self.padding)

  def dilations(self, axes: int) -> tuple[tuple[int, int], ...]:
    """Returns those of input and window for each of so many axes."""
    ones = (1,) * axes
    return tuple(
      zip(self.lhs_dilation or ones, self.rhs_dilation or ones, strict=True)
    )


def conv(
  x: Array, w: Array, *, window: Window, precision: Any, dtype: Any
) -> Array:
  """Convolves x [batch, *space, c_in] with w [*window, c_in / groups, c_out].

  Args:
    x: input.
    w: weights.
    window: how it moves.
    precision: of the products.
    dtype: in which to add up; ``None``: as the operands say.
  """
  last = x.ndim - 1
  spatial = tuple(range(1, last))
  channels_last = jax.lax.ConvDimensionNumbers(
    lhs_spec=(0, last, *spatial),
    rhs_spec=(last, last - 1, *range(last - 1)),
    out_spec=(0, last, *spatial),
  )
  return jax.lax.conv_general_dilated(
    x,
    w,
    window.strides,
    window.padding,
    lhs_dilation=window.lhs_dilation,
    rhs_dilation=window.rhs_dilation,
    dimension_numbers=channels_last,
    feature_group_count=window.groups,
    precision=precision,
    preferred_element_type=dtype,
  )


def conv_by_input(
  g: Array,
  w: Array | QTensor,
  *,
  x: jax.ShapeDtypeStruct,
  window: Window,
  precision: Any,
  ternary: bool = True,
) -> Array:
  """Transposes a convolution by its input; see ``xla.dot_by_input``.

  Codes are multiplied as floats.

  Args:
    g: cotangent of the outputs; or its int8 codes.
    w: weights, or codes with a single scale.
    x: what the result is like.
    window: how it moves.
    precision: of the products.
    ternary: does not matter here.
  """
  del ternary
  scale = None
  if isinstance(w, QTensor):
    w, scale = w.codes.astype(g.dtype), w.scale.reshape(())
  g, w = _as_floats(g), _as_floats(w)
  options = {"window": window, "precision": precision, "dtype": g.dtype}
  (dx,) = jax.linear_transpose(
    lambda x: conv(x, w, **options), x.update(dtype=g.dtype)
  )(g)
  return dx if scale is None else dx * scale


def dequantized_by_input(g: Array, w: QTensor, **options: Any) -> Array:
  """Multiplies floats; see ``xla.dequantized_by_input``."""
  return conv_by_input(g, w.dequantize(), **options)


def by_input_in_float32(g: Array, w: Array | QTensor, **options: Any) -> Array:
  """Convolves in float32, the only dtype that CPUs are fast in."""
  if isinstance(w, QTensor):
    dx = by_input_in_float32(g, w.codes.astype(g.dtype), **options)
    return dx * w.scale.reshape(())
  g, w = g.astype(jnp.float32), w.astype(jnp.float32)
  return conv_by_input(g, w, **options)


def conv_by_weight(
  g: Array,
  x: Array | QTensor,
  *,
  w: jax.ShapeDtypeStruct,
  window: Window,
  precision: Any,
) -> Array:
  """Transposes a convolution by its weights; see ``xla.dot_by_weight``.

  Codes are multiplied as floats.

  Args:
    g: cotangent of the outputs; or its int8 codes.
    x: input, or its codes.
    w: what the result is like.
    window: how it moves.
    precision: of the products.
  """
  g = _as_floats(g)
  x = x.dequantize() if isinstance(x, QTensor) else _as_floats(x)
  options = {"window": window, "precision": precision, "dtype": g.dtype}
  (dw,) = jax.linear_transpose(
    lambda w: conv(x.astype(g.dtype), w, **options), w.update(dtype=g.dtype)
  )(g)
  return dw


def by_weight_in_float32(g: Array, x: Array | QTensor, **options: Any) -> Array:
  """Convolves in float32; see ``by_input_in_float32``."""
  x = x if isinstance(x, QTensor) else x.astype(jnp.float32)
  return conv_by_weight(g.astype(jnp.float32), x, **options)


def _as_floats(array):
  return array.astype(jnp.float32) if array.dtype == jnp.int8 else array


def by_tap(
  g: Array,
  x: Array | QTensor,
  *,
  w: jax.ShapeDtypeStruct,
  window: Window,
  contract: Callable[[Array, Array], Array],
) -> Array:
  """Returns the gradient by the weights, one position in the window at a time.

  Args:
    g: cotangent of the outputs, or its codes.
    x: input, or its codes.
    w: what the result is like.
    window: how it moves.
    contract: of the rows of g and of what one position meets, both
      [rows, channels]: the part of the result at that position.
  """
  g = g.astype(jnp.float32) if g.dtype == jnp.int8 else g
  if isinstance(x, QTensor):
    g, x = g * x.scale, x.codes
  sizes = w.shape[:-2]
  dilations = window.dilations(len(sizes))
  pads = [
    (low, high, dilation - 1)
    for (low, high), (dilation, _) in zip(
      window.pads(x.shape[1:-1], sizes), dilations, strict=True
    )
  ]
  # As the window sees it: dilated, and padded with zeros.
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
  reach = [
    (n - 1) * stride + 1
    for n, stride in zip(g.shape[1:-1], window.strides, strict=True)
  ]
  g_rows = g.reshape(-1, g.shape[-1])

  def tap(_, i):
    start = jnp.unravel_index(i, sizes)
    start = [k * d for k, (_, d) in zip(start, dilations, strict=True)]
    seen = jax.lax.dynamic_slice(
      x, (0, *start, 0), (x.shape[0], *reach, x.shape[-1])
    )
    steps = (1, *window.strides, 1)
    seen = jax.lax.slice(seen, (0,) * x.ndim, seen.shape, steps)
    return None, contract(g_rows, seen.reshape(-1, x.shape[-1]))

  _, taps = jax.lax.scan(tap, None, jnp.arange(math.prod(sizes)))
  return taps.reshape(w.shape)


def is_grouped(g: Array, x: Any, *, window: Window, **options: Any) -> bool:
  """Whether channels are in groups.

  What XLA's partitioner makes of the weight gradient of groups is wrong on a
  mesh along one axis of which the batch is whole.
  """
  del g, x, options
  return window.groups > 1


def by_grouped_tap(
  g: Array, x: Any, *, window: Window, precision: Any, **options: Any
) -> Array:
  """Goes by tap, with a product of matrices for each group of channels."""

  def contract(g, x):
    x, g = (a.reshape(len(a), window.groups, -1) for a in (x, g))
    dw = jnp.einsum(
      "rgi,rgo->igo",
      x.astype(g.dtype),
      g,
      precision=precision,
      preferred_element_type=jnp.float32,
    )
    return dw.reshape(dw.shape[0], -1)

  g = g.astype(jnp.float32)
  return by_tap(g, x, window=window, contract=contract, **options)
