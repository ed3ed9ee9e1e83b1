"""Quantized convolution."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, ArrayLike, Float, Key

from bitnet_jax.ops import compute
from bitnet_jax.ops.product import quantized_product
from bitnet_jax.quantizers.recipe import RecipeLike, get_recipe
from bitnet_jax.types import QTensor

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
    return w.shape[-2] < compute.CPU_MIN_CHANNELS


def bit_conv(
  x: Float[Array, "batch *spatial c_in"],
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
    w: latent weights; or a ``QTensor``, taken as it is, without gradient.
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
    ValueError: as ``bit_dot``.
  """
  w_shape = w.qvalue.shape if isinstance(w, QTensor) else w.shape
  if x.ndim != len(w_shape) or x.ndim < 3:
    raise ValueError(
      "bit_conv takes x [batch, *spatial, c_in] and w [*window, c_in / groups,"
      f" c_out], not {x.shape} and {w_shape}"
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


def _pairs(padding):
  return tuple((int(low), int(high)) for low, high in padding)
