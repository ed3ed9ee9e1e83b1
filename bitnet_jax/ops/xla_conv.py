"""Convolutions and their gradients in plain JAX; see ``xla``."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bitnet_jax.types import QTensor


@dataclasses.dataclass(frozen=True)
class Window:
  """The window of a convolution, as in ``jax.lax.conv_general_dilated``.

  Attributes:
    strides: strides of the window.
    padding: "SAME", "VALID", or (low, high) for each spatial axis.
    lhs_dilation: dilation of the input; ``None`` for 1 along each axis.
    rhs_dilation: dilation of the window, likewise.
    groups: number of groups of channels.
  """

  strides: Sequence[int]
  padding: str | Sequence[tuple[int, int]]
  lhs_dilation: Sequence[int] | None = None
  rhs_dilation: Sequence[int] | None = None
  groups: int = 1

  def __post_init__(self):
    padding = self.padding
    if not isinstance(padding, str):
      padding = tuple((int(low), int(high)) for low, high in padding)
    object.__setattr__(self, "padding", padding)
    for name in ("strides", "lhs_dilation", "rhs_dilation"):
      value = getattr(self, name)
      object.__setattr__(self, name, None if value is None else tuple(value))

  def pads(
    self, space: Sequence[int], sizes: Sequence[int]
  ) -> Sequence[tuple[int, int]]:
    """Returns the padding before and after each axis."""
    if not isinstance(self.padding, str):
      return self.padding
    dilations = self.dilations(len(space))
    seen, reach = (
      tuple((n - 1) * by + 1 for n, by in zip(ns, bys, strict=True))
      for ns, bys in zip(
        (space, sizes), zip(*dilations, strict=True), strict=True
      )
    )
    return jax.lax.padtype_to_pads(seen, reach, self.strides, self.padding)

  def dilations(self, rank: int) -> tuple[tuple[int, int], ...]:
    """Returns the dilations of input and window, for each spatial axis."""
    ones = (1,) * rank
    return tuple(
      zip(self.lhs_dilation or ones, self.rhs_dilation or ones, strict=True)
    )


def conv(
  x: Array, w: Array, *, window: Window, precision: Any, dtype: Any
) -> Array:
  """Convolves x [batch, *space, c_in] with w [*window, c_in / groups, c_out].

  Sums are in ``dtype``; ``None``: in that of the operands.
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
  like: jax.ShapeDtypeStruct,
  window: Window,
  precision: Any,
  in_float32: bool = False,
  **_: Any,
) -> Array:
  """Transposes a convolution by its input; see ``xla.dot_by_input``.

  Args:
    g: cotangent of the outputs; or its int8 codes.
    w: weights, or codes with a single scale.
    like: shape, dtype and sharding of the result.
    window: window of the convolution.
    precision: precision of the products.
    in_float32: whether floats of all dtypes become float32, as codes do.
  """
  scale = None
  if isinstance(w, QTensor):
    w, scale = w.codes.astype(g.dtype), w.scale.reshape(())
  g, w = (_as_floats(a, in_float32) for a in (g, w))
  options = {"window": window, "precision": precision, "dtype": g.dtype}
  (dx,) = jax.linear_transpose(
    lambda x: conv(x, w, **options), like.update(dtype=g.dtype)
  )(g)
  return dx if scale is None else dx * scale


def conv_by_weight(
  g: Array,
  x: Array | QTensor,
  *,
  like: jax.ShapeDtypeStruct,
  window: Window,
  precision: Any,
  in_float32: bool = False,
  **_: Any,
) -> Array:
  """Transposes a convolution by its weights; see ``conv_by_input``.

  Args:
    g: cotangent of the outputs; or its int8 codes.
    x: input, or its codes.
    like: shape, dtype and sharding of the result.
    window: window of the convolution.
    precision: precision of the products.
    in_float32: see ``conv_by_input``.
  """
  g = _as_floats(g, in_float32)
  is_codes = isinstance(x, QTensor)
  x = x.dequantize() if is_codes else _as_floats(x, in_float32)
  options = {"window": window, "precision": precision, "dtype": g.dtype}
  (dw,) = jax.linear_transpose(
    lambda w: conv(x.astype(g.dtype), w, **options), like.update(dtype=g.dtype)
  )(g)
  return dw


def _as_floats(array, in_float32):
  convert = in_float32 or array.dtype == jnp.int8
  return array.astype(jnp.float32) if convert else array


def by_tap(
  g: Array,
  x: Array | QTensor,
  *,
  like: jax.ShapeDtypeStruct,
  window: Window,
  contract: Callable[[Array, Array], Array],
  **options: Any,
) -> Array:
  """Returns the gradient by the weights, one position in the window at a time.

  Args:
    g: cotangent of the outputs, or its codes.
    x: input, or its codes.
    like: shape, dtype and sharding of the result.
    window: window of the convolution.
    contract: maps the rows of g and what one position meets, both
      [rows, channels], to the part of the result at that position.
  """
  g = _as_floats(g, in_float32=False)
  if isinstance(x, QTensor):
    g, x = g * x.scale, x.codes
  sizes = like.shape[:-2]
  dilations = window.dilations(len(sizes))
  pads = [
    (low, high, dilation - 1)
    for (low, high), (dilation, _) in zip(
      window.pads(x.shape[1:-1], sizes), dilations, strict=True
    )
  ]
  # Dilated, and padded with zeros.
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
  return taps.reshape(like.shape)


def is_grouped(g: Array, x: Any, *, window: Window, **_: Any) -> bool:
  """Whether channels are in groups.

  XLA's partitioner makes their weight gradient wrong on a mesh along one axis
  of which the batch is whole.
  """
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
