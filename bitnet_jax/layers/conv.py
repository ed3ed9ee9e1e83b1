"""A convolution whose kernel and input are quantized by a recipe."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.linear import canonicalize_padding
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers.dense import (
  default_kernel_init,
  kernel_of,
  quantize_key,
  result_dtype,
)
from bitnet_jax.ops import bit_conv
from bitnet_jax.ops.operands import prepare_input
from bitnet_jax.quantizers.recipe import (
  RECIPES,
  Recipe,
  RecipeLike,
  get_recipe,
)
from bitnet_jax.types import QTensor

_PAD_MODES = {"CIRCULAR": "wrap", "REFLECT": "reflect"}


class BitConv(nn.Module):
  """``nn.Conv`` whose kernel and input are quantized by a recipe.

  Has the parameters of ``nn.Conv``, ``kernel`` [*window, c_in / groups,
  features] and ``bias`` [features], and its arguments in their order. One
  example is one token: the norm and the activation scale run over its whole
  space and all its channels, so that a one-channel image keeps its content.

  Attributes:
    features: number of output channels.
    kernel_size: size of the window along each spatial axis.
    strides: one for all axes, or one for each.
    padding: "SAME", "VALID", "CIRCULAR", "REFLECT", "CAUSAL" (one spatial axis
      only), an integer, or integers or (low, high) pairs for each axis.
    input_dilation: dilation of the input.
    kernel_dilation: dilation of the window.
    feature_group_count: number of groups of channels.
    use_bias: whether to add a bias.
    mask: refused; here to keep the order of arguments.
    dtype: see ``BitDense``, like the rest.
    param_dtype: see ``BitDense``.
    precision: see ``BitDense``.
    kernel_init: see ``BitDense``.
    bias_init: see ``BitDense``.
    recipe: see ``BitDense``.
  """

  features: int
  kernel_size: int | Sequence[int]
  strides: int | Sequence[int] | None = 1
  padding: Any = "SAME"
  input_dilation: int | Sequence[int] | None = 1
  kernel_dilation: int | Sequence[int] | None = 1
  feature_group_count: int = 1
  use_bias: bool = True
  mask: Any = None
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  kernel_init: nn.initializers.Initializer = default_kernel_init
  bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
  _: dataclasses.KW_ONLY
  recipe: RecipeLike = RECIPES["b158"]

  @nn.compact
  def __call__(
    self, x: Num[Array, "..."] | QTensor, *, strength: ArrayLike | None = None
  ) -> Num[Array, "..."]:
    """Convolves ``quantize(norm(x))`` with ``quantize(kernel)``.

    Args:
      x: input ``[*batch, *spatial, c_in]``, with any number of batch axes, or
        what ``quantize_input`` made of it.
      strength: share of quantization in force, see ``bit_dot``.

    Returns:
      Array ``[*batch, *spatial_out, features]``.

    Raises:
      ValueError: for a mask, too few axes, channels that the groups do not
        divide, or causal padding of more than one axis.
    """
    if self.mask is not None:
      raise ValueError("BitConv does not support mask")
    recipe = get_recipe(self.recipe)
    window = _per_axis(self.kernel_size, 1)
    check_input(x, window, self.feature_group_count, self.features)
    c_in = x.shape[-1] // self.feature_group_count
    kernel_shape = (*window, c_in, self.features)
    kernel = kernel_of(self, kernel_shape, self.kernel_init)
    bias = None
    if self.use_bias:
      bias = self.param(
        "bias", self.bias_init, (self.features,), self.param_dtype
      )
    return convolve(
      self,
      x,
      kernel,
      bias,
      recipe,
      strength=strength,
      key=quantize_key(self, recipe),
    )


def check_input(x: Any, window: Sequence[int], groups: int, c_out: int) -> None:
  """Raises a ValueError for an input that a convolution does not take."""
  rank = len(window)
  if x.ndim < rank + 1:
    raise ValueError(
      f"BitConv with a window {tuple(window)} takes an input of at least"
      f" {rank + 1} axes, not one of shape {x.shape}"
    )
  if x.shape[-1] % groups or c_out % groups:
    raise ValueError(
      f"feature_group_count is {groups}, which must divide the {x.shape[-1]}"
      f" input and the {c_out} output channels"
    )


def convolve(
  layer: Any,
  x: Num[Array, "..."] | QTensor,
  kernel: Any,
  bias: Array | None,
  recipe: Recipe,
  *,
  strength: ArrayLike | None,
  key: Array | None,
) -> Num[Array, "..."]:
  """Convolves ``quantize(norm(x))`` with ``quantize(kernel)``.

  Args:
    layer: a ``BitConv`` of Linen or of NNX, whose strides, padding, dilations,
      groups, dtypes and precision hold.
    x: ``[*batch, *spatial, c_in]``, or what ``quantize_input`` made of it.
    kernel: latent weights, or codes.
    bias: [features], or ``None``.
    recipe: of the layer.
    strength: share of quantization in force, see ``bit_dot``.
    key: for stochastic rounding.

  Raises:
    ValueError: for causal padding of more than one axis.
  """
  rank = kernel.ndim - 2
  dtype = result_dtype(layer, x, kernel, bias)
  batch_shape = x.shape[: -rank - 1]
  x = jax.tree.map(
    # A scale too has the axes of a batch of examples.
    lambda a: a.reshape(math.prod(a.shape[: -rank - 1]), *a.shape[-rank - 1 :]),
    x,
  )
  axes = tuple(range(1, x.ndim))
  x = prepare_input(x, recipe, axes=axes, strength=strength)
  x, padding = _pad(layer, x, kernel.shape[:rank])
  y = bit_conv(
    x,
    kernel,
    recipe,
    window_strides=_per_axis(layer.strides, rank),
    padding=padding,
    lhs_dilation=_per_axis(layer.input_dilation, rank),
    rhs_dilation=_per_axis(layer.kernel_dilation, rank),
    feature_group_count=layer.feature_group_count,
    bias=bias,
    strength=strength,
    key=key,
    precision=layer.precision,
    dtype=dtype,
  )
  return y.reshape(*batch_shape, *y.shape[1:])


def _pad(layer, x, window):
  """Pads with values where XLA cannot; returns what is left to XLA."""
  rank = len(window)
  padding = canonicalize_padding(layer.padding, rank)
  dilation = _per_axis(layer.kernel_dilation, rank)
  reach = [(k - 1) * d for k, d in zip(window, dilation, strict=True)]
  if padding == "CAUSAL":
    if rank != 1:
      raise ValueError(
        f"padding is 'CAUSAL', which takes one spatial axis, not {rank}"
      )
    return x, ((reach[0], 0),)
  if isinstance(padding, str) and padding in _PAD_MODES:
    pads = [(0, 0), *((r // 2, r - r // 2) for r in reach), (0, 0)]
    mode = _PAD_MODES[padding]
    if isinstance(x, QTensor):
      latent = None if x.latent is None else jnp.pad(x.latent, pads, mode)
      codes = jnp.pad(x.codes, pads, mode)
      return QTensor(codes, x.scale, latent), "VALID"
    return jnp.pad(x, pads, mode), "VALID"
  return x, padding


def _per_axis(value: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
  if value is None:
    value = 1
  return (value,) * rank if isinstance(value, int) else tuple(value)
