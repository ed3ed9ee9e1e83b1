"""Convolutions on CPUs, and the sizes for which each one is faster.

The sizes follow the measurements in docs/performance.md; see ``cpu.dot``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bitnet_jax.ops import xla_conv
from bitnet_jax.ops.cpu import dot, kernels
from bitnet_jax.ops.xla_conv import Window
from bitnet_jax.types import QTensor

# XLA's int8 convolution is slower than the float one for fewer input channels
# than this, or where neither input nor output has as many as that.
MIN_CHANNELS = 4
MIN_LARGER_CHANNELS = 17
# Least number for which a weight gradient is faster by window position.
MIN_CHANNELS_BY_TAP = 8
# The outputs that the kernel that looks sums up takes to be faster; an input or
# output must also have MIN_LARGER_CHANNELS.
MIN_OUTPUTS_LOOKED_UP = 16
# As in ``dot``, of input channels.
MIN_CHANNELS_SUMMED = 3


def is_slow_in_int8(w: Any, window: Window) -> bool:
  """Whether XLA lacks a fast int8 path for weights of this shape."""
  c_in, c_out = w.shape[-2], w.shape[-1] // window.groups
  return c_in < MIN_CHANNELS or max(c_in, c_out) < MIN_LARGER_CHANNELS


def looks_up(g: Array, w: Any, *, window: Window, **options: Any) -> bool:
  """Whether the lookup kernel is faster."""
  return (
    dot.looks_up(g, w, **options)
    and window.groups == 1
    and w.shape[-1] >= MIN_OUTPUTS_LOOKED_UP
    and max(w.shape[-2:]) >= MIN_LARGER_CHANNELS
  )


def look_up(
  g: Array, w: QTensor, *, like: Any, window: Window, **_: Any
) -> Array:
  """Looks up the sums of the gradient by x."""
  batch, *space, c_in = like.shape
  sizes, outputs = w.shape[:-2], g.shape[1:-1]
  dx = kernels.ternary_conv_transpose(
    g.reshape(batch, math.prod(outputs), w.shape[-1]),
    w.codes.reshape(math.prod(sizes), c_in, w.shape[-1]),
    w.scale.reshape(()).astype(jnp.float32),
    places(window, space, outputs, sizes),
    size=math.prod(space),
  )
  return dx.reshape(like.shape)


def sums_up(g: Array, x: Any, *, window: Window, **_: Any) -> bool:
  """Whether the integer kernel is faster."""
  one_group = window.groups == 1 and isinstance(x, QTensor)
  return one_group and dot.sums_up(g, x, min_columns=MIN_CHANNELS_SUMMED)


def sum_up(
  g: Array, x: QTensor, *, like: Any, window: Window, **_: Any
) -> Array:
  """Sums the gradient by w as integers."""
  batch, *space, c_in = x.shape
  sizes, outputs = like.shape[:-2], g.shape[1:-1]
  dw = kernels.transposed_conv(
    x.codes.reshape(batch, math.prod(space), c_in),
    x.scale.reshape(-1).astype(jnp.float32),
    g.reshape(batch, math.prod(outputs), g.shape[-1]),
    places(window, space, outputs, sizes),
  )
  return dw.reshape(like.shape)


def places(
  window: Window,
  space: Sequence[int],
  space_out: Sequence[int],
  sizes: Sequence[int],
) -> Array:
  """Returns which input an output meets at a place of the window.

  int32 [outputs, places], all three flattened; -1 where that is padding.
  """
  found = jnp.zeros((1, 1), jnp.int32)
  for n, n_out, size, stride, (low, _), (of_x, of_window) in zip(
    space,
    space_out,
    sizes,
    window.strides,
    window.pads(space, sizes),
    window.dilations(len(space)),
    strict=True,
  ):
    at = np.arange(n_out)[:, None] * stride - low
    at = at + np.arange(size) * of_window
    inside = (at % of_x == 0) & (at >= 0) & (at < n * of_x)
    at = np.where(inside, at // of_x, -1).astype(np.int32)[None, :, None]
    outer = found[:, None, :, None]
    found = jnp.where(jnp.minimum(outer, at) < 0, -1, outer * n + at)
    found = found.reshape(outer.shape[0] * n_out, outer.shape[2] * size)
  return found


def goes_by_tap(
  g: Array, x: Any, *, like: Any, window: Window, **_: Any
) -> bool:
  """Whether the weight gradient goes by tap.

  XLA's convolution with the shapes of a weight gradient takes two to three
  times as long.
  """
  return window.groups == 1 and like.shape[-2] >= MIN_CHANNELS_BY_TAP


def is_copied_by_tap(g: Array, x: Any, **options: Any) -> bool:
  """Whether also a transposed copy of what a tap sees is worth it."""
  is_float32 = g.dtype in (jnp.float32, jnp.int8)  # int8 becomes float32.
  is_narrow = is_float32 and x.shape[-1] < dot.MIN_COLUMNS_COPIED
  return goes_by_tap(g, x, **options) and not is_narrow


def by_tap(
  g: Array,
  x: Any,
  *,
  like: Any,
  window: Window,
  precision: Any,
  dot_by_weight: Callable[..., Array],
  copied: bool,
  **_: Any,
) -> Array:
  """Goes by tap, with one product of matrices for each.

  Args:
    g: cotangent of the outputs.
    x: input.
    like: shape, dtype and sharding of the result.
    window: window of the convolution.
    precision: precision of the products.
    dot_by_weight: the operation.
    copied: whether that copies what a tap sees: codes are less to transpose.
  """

  def contract(g, seen):
    seen = seen if copied else seen.astype(g.dtype)
    # A barrier, since XLA makes it slow when it fuses what follows.
    seen = jax.lax.optimization_barrier(seen)
    of_tap = jax.ShapeDtypeStruct(like.shape[-2:], jnp.float32)
    return dot_by_weight(g, seen, like=of_tap, precision=precision)

  return xla_conv.by_tap(g, x, like=like, window=window, contract=contract)
