"""Quantized convolution."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from bitnet_jax.ops import compute, kernels
from bitnet_jax.ops.dot import (
  looks_sums_up,
  sums_integers,
  transposed_dot,
  transposes_first,
)
from bitnet_jax.ops.packing import unpack
from bitnet_jax.ops.product import quantized_product
from bitnet_jax.quantizers.recipe import RecipeLike, get_recipe
from bitnet_jax.types import Packed, QTensor

Padding = str | tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convolution:
  """``x [batch, *space, c_in]`` with ``w [*window, c_in / groups, c_out]``."""

  strides: tuple[int, ...]
  padding: Padding
  lhs_dilation: tuple[int, ...] | None
  rhs_dilation: tuple[int, ...] | None
  groups: int

  def __call__(self, x, w, *, precision, dtype):
    """See ``Bilinear``."""
    w = unpack(w) if isinstance(w, Packed) else w
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
      self.strides,
      self.padding,
      lhs_dilation=self.lhs_dilation,
      rhs_dilation=self.rhs_dilation,
      dimension_numbers=channels_last,
      feature_group_count=self.groups,
      precision=precision,
      preferred_element_type=dtype,
    )

  def input_gradient(self, g, w, x, *, precision):
    """See ``Bilinear``; codes are multiplied as floats by XLA."""

    def by_kernel(g, w):
      batch, *space, c_in = x.shape
      c_out = w.shape[-1]
      window, outputs = w.shape[:-2], g.shape[1:-1]
      dx = kernels.ternary_conv_transpose(
        g.reshape(batch, math.prod(outputs), c_out),
        w.codes.reshape(math.prod(window), c_in, c_out),
        w.scale.reshape(()).astype(jnp.float32),
        self._places(space, outputs, window),
        size=math.prod(space),
      )
      return dx.reshape(x.shape)

    def by_xla(g, w):
      w = w.dequantize() if isinstance(w, QTensor) else _as_floats(w)
      g = _as_floats(g)
      product = functools.partial(self, precision=precision, dtype=g.dtype)
      of_x = x.update(dtype=g.dtype)
      (dx,) = jax.linear_transpose(lambda x: product(x, w), of_x)(g)
      return dx

    if self._looks_sums_up(g, w):
      return kernels.differentiable(by_kernel, by_xla, g, w)
    return by_xla(g, w)

  def _looks_sums_up(self, g, w):
    return (
      looks_sums_up(g, w)
      and self.groups == 1
      and w.shape[-1] >= compute.CPU_MIN_OUTPUTS_LOOKED_UP
      and max(w.shape[-2:]) >= compute.CPU_MIN_LARGER_CHANNELS
    )

  def _places(self, space, space_out, window):
    """Returns which input an output meets at a place of the window.

    int32 [outputs, places], all three flattened; -1 where that is padding.
    """
    places = jnp.zeros((1, 1), jnp.int32)
    padding = self._padding(space, window)
    dilations = self._dilations(len(space))
    for n, n_out, size, stride, (low, _), (of_x, of_window) in zip(
      space, space_out, window, self.strides, padding, dilations, strict=True
    ):
      at = np.arange(n_out)[:, None] * stride - low
      at = at + np.arange(size) * of_window
      inside = (at % of_x == 0) & (at >= 0) & (at < n * of_x)
      at = np.where(inside, at // of_x, -1).astype(np.int32)[None, :, None]
      outer = places[:, None, :, None]
      places = jnp.where(jnp.minimum(outer, at) < 0, -1, outer * n + at)
      outputs, taps = outer.shape[0] * n_out, outer.shape[2] * size
      places = places.reshape(outputs, taps)
    return places

  def weight_gradient(self, g, x, w, *, precision):
    """See ``Bilinear``; likewise."""
    by_xla = functools.partial(
      self._weight_gradient_by_xla, w=w, precision=precision
    )
    columns = compute.CPU_MIN_CHANNELS_SUMMED
    one_group = self.groups == 1 and isinstance(x, QTensor)
    if one_group and sums_integers(x, g, columns=columns):
      by_kernel = functools.partial(self._weight_gradient_by_kernel, w=w)
      return kernels.differentiable(by_kernel, by_xla, g, x)
    return by_xla(g, x)

  def _weight_gradient_by_kernel(self, g, x, w):
    batch, *space, c_in = x.shape
    window, outputs = w.shape[:-2], g.shape[1:-1]
    dw = kernels.transposed_conv(
      x.codes.reshape(batch, math.prod(space), c_in),
      x.scale.reshape(-1).astype(jnp.float32),
      g.reshape(batch, math.prod(outputs), g.shape[-1]),
      self._places(space, outputs, window),
    )
    return dw.reshape(w.shape)

  def _weight_gradient_by_xla(self, g, x, w, precision):
    if self._goes_by_tap(w):
      if g.dtype == jnp.int8 or self.groups > 1:
        g = g.astype(jnp.float32)
      if isinstance(x, QTensor):
        g, x = g * x.scale, x.codes
      return self._weight_gradient_by_tap(g, x, w, precision)
    g = _as_floats(g)
    x = x.dequantize() if isinstance(x, QTensor) else _as_floats(x)
    w = w.update(dtype=g.dtype)
    product = functools.partial(self, precision=precision, dtype=g.dtype)
    (dw,) = jax.linear_transpose(lambda w: product(x.astype(g.dtype), w), w)(g)
    return dw

  def _goes_by_tap(self, w):
    # With groups everywhere, since what XLA's partitioner makes of their weight
    # gradient is wrong on a mesh along one axis of which the batch is whole.
    if self.groups > 1:
      return True
    return compute.on_cpu() and w.shape[-2] >= compute.CPU_MIN_CHANNELS_BY_TAP

  def _weight_gradient_by_tap(self, g, x, w, precision):
    """One product of matrices for each position in the window.

    XLA's CPU convolution with the shapes of a weight gradient takes two to
    three times as long.
    """
    window = w.shape[:-2]
    dilations = self._dilations(len(window))
    x = self._pad(x, window)
    reach = [
      (n - 1) * stride + 1
      for n, stride in zip(g.shape[1:-1], self.strides, strict=True)
    ]
    g_rows = g.reshape(-1, g.shape[-1])

    def tap(_, i):
      start = jnp.unravel_index(i, window)
      start = [k * d for k, (_, d) in zip(start, dilations, strict=True)]
      seen = jax.lax.dynamic_slice(
        x, (0, *start, 0), (x.shape[0], *reach, x.shape[-1])
      )
      steps = (1, *self.strides, 1)
      seen = jax.lax.slice(seen, (0,) * x.ndim, seen.shape, steps)
      seen = seen.reshape(-1, x.shape[-1])
      if self.groups > 1:
        return None, self._dot_of_groups(seen, g_rows, precision)
      if not transposes_first(seen, g_rows):  # Codes are less to transpose.
        seen = seen.astype(g.dtype)
      # A barrier, since XLA makes it slow when it fuses what follows.
      seen = jax.lax.optimization_barrier(seen)
      return None, transposed_dot(
        seen, g_rows, precision=precision, dtype=jnp.float32
      )

    _, taps = jax.lax.scan(tap, None, jnp.arange(math.prod(window)))
    return taps.reshape(w.shape)

  def _dot_of_groups(self, x, g, precision):
    """Returns ``x^T g`` of each group of channels: [c_in / groups, c_out]."""
    x, g = (a.reshape(len(a), self.groups, -1) for a in (x, g))
    dw = jnp.einsum(
      "rgi,rgo->igo",
      x.astype(g.dtype),
      g,
      precision=precision,
      preferred_element_type=jnp.float32,
    )
    return dw.reshape(dw.shape[0], -1)

  def _pad(self, x, window):
    """Returns ``x`` as the window sees it: dilated, and padded with zeros."""
    space = x.shape[1:-1]
    config = [
      (low, high, dilation - 1)
      for (low, high), (dilation, _) in zip(
        self._padding(space, window), self._dilations(len(space)), strict=True
      )
    ]
    return jax.lax.pad(
      x, jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)]
    )

  def _padding(self, space, window):
    """Returns what is added before and after each axis."""
    if not isinstance(self.padding, str):
      return self.padding
    seen, reach = zip(
      *(
        ((n - 1) * of_x + 1, (size - 1) * of_window + 1)
        for n, size, (of_x, of_window) in zip(
          space, window, self._dilations(len(space)), strict=True
        )
      ),
      strict=True,
    )
    return jax.lax.padtype_to_pads(seen, reach, self.strides, self.padding)

  def _dilations(self, axes):
    """Returns those of input and window for each of so many axes."""
    ones = (1,) * axes
    return tuple(
      zip(self.lhs_dilation or ones, self.rhs_dilation or ones, strict=True)
    )

  def act_axes(self, quantizer, x):
    """See ``Bilinear``."""
    return tuple(range(0 if quantizer.axis is None else 1, x.ndim))

  def weight_axes(self, quantizer, w):
    """See ``Bilinear``."""
    return tuple(range(w.ndim if quantizer.axis is None else w.ndim - 1))

  def terms(self, w):
    """See ``Bilinear``."""
    return math.prod(w.shape[:-1])

  def slow_in_int8(self, x, w):
    """See ``Bilinear``."""
    del x
    c_in, c_out = w.shape[-2], w.shape[-1] // self.groups
    return (
      c_in < compute.CPU_MIN_CHANNELS
      or max(c_in, c_out) < compute.CPU_MIN_LARGER_CHANNELS
    )


def bit_conv(
  x: Float[Array, "batch *spatial c_in"] | QTensor,
  w: Float[Array, "*window c_in_per_group c_out"] | QTensor,
  recipe: RecipeLike,
  *,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  feature_group_count: int = 1,
  bias: Float[Array, " c_out"] | None = None,
  strength: ArrayLike | None = None,
  key: Key[Array, ""] | None = None,
  precision: Any = None,
  dtype: Any = None,
) -> Float[Array, "batch *spatial_out c_out"]:
  """Convolves activations and weights as integers, channels last.

  Formulas, gradients and what is kept for them are those of ``bit_dot``; one
  activation scale is shared by a whole example, over space and channels.

  Args:
    x: activations with one batch axis and one or more spatial axes.
    w: latent weights. Each operand may be a ``QTensor``, see ``bit_dot``.
    recipe: a ``Recipe`` or the name of one.
    window_strides: as in ``jax.lax.conv_general_dilated``, like the next four.
    padding: "SAME", "VALID", or a (low, high) pair for each spatial axis.
    lhs_dilation: dilation of the input.
    rhs_dilation: dilation of the window.
    feature_group_count: number of groups of channels.
    bias: see ``bit_dot``, like the rest.
    strength: see ``bit_dot``.
    key: see ``bit_dot``.
    precision: see ``bit_dot``.
    dtype: see ``bit_dot``.

  Returns:
    The convolution, in ``dtype``.

  Raises:
    TypeError: as ``bit_dot``.
    ValueError: likewise.
  """
  if x.ndim != w.ndim or x.ndim < 3:
    raise ValueError(
      "bit_conv takes x [batch, *spatial, c_in] and w [*window, c_in / groups,"
      f" c_out], not {x.shape} and {w.shape}"
    )
  convolution = Convolution(
    strides=tuple(window_strides),
    padding=padding if isinstance(padding, str) else _pairs(padding),
    lhs_dilation=None if lhs_dilation is None else tuple(lhs_dilation),
    rhs_dilation=None if rhs_dilation is None else tuple(rhs_dilation),
    groups=feature_group_count,
  )
  return quantized_product(
    convolution,
    x,
    w,
    bias,
    get_recipe(recipe),
    strength=strength,
    key=key,
    precision=precision,
    dtype=dtype,
  )


def _as_floats(array):
  """Casts codes to float32, and what CPUs convolve in that only."""
  if array.dtype == jnp.int8 or compute.on_cpu():
    return array.astype(jnp.float32)
  return array


def _pairs(padding):
  return tuple((int(low), int(high)) for low, high in padding)
