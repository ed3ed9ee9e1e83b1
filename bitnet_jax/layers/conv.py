"""A convolution whose kernel and input are quantized by a recipe."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import linear
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers.arguments import (
  as_tuple,
  check_sizes,
  defaults_of,
  own_options,
  run_namesake,
)
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
    mask: array like the kernel, which is multiplied by it before it is
      quantized; or ``None``.
    dtype: see ``BitDense``, like the rest.
    param_dtype: see ``BitDense``.
    precision: see ``BitDense``.
    kernel_init: see ``BitDense``.
    bias_init: see ``BitDense``.
    promote_dtype: see ``BitDense``, like the next two.
    conv_general_dilated: see ``promote_dtype``.
    conv_general_dilated_cls: see ``promote_dtype``.
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
  promote_dtype: Any = linear.promote_dtype
  conv_general_dilated: Any = None
  conv_general_dilated_cls: Any = None
  _: dataclasses.KW_ONLY
  recipe: RecipeLike = RECIPES["b158"]

  def __post_init__(self):
    check_sizes(
      type(self).__name__,
      "features",
      "feature_group_count",
      features=self.features,
      kernel_size=self.kernel_size,
      strides=self.strides,
      input_dilation=self.input_dilation,
      kernel_dilation=self.kernel_dilation,
      feature_group_count=self.feature_group_count,
    )
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    inputs: Num[Array, "..."] | QTensor,
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "..."]:
    """Convolves ``quantize(norm(inputs))`` with ``quantize(kernel)``.

    Args:
      inputs: ``[*batch, *spatial, c_in]``, with any number of batch axes, or
        what ``quantize_input`` made of them.
      strength: share of quantization in force, see ``bit_dot``.

    Returns:
      Array ``[*batch, *spatial_out, features]``.

    Raises:
      ValueError: for too few axes, channels that the groups do not divide,
        causal padding of more than one axis, or a mask that does not fit.
    """
    recipe = get_recipe(self.recipe)
    if own_options(self, defaults_of(linear.Conv)):
      return run_namesake(self, linear.Conv, recipe, inputs)
    window = as_tuple(self.kernel_size)
    check_input(inputs, window, self.feature_group_count, self.features)
    c_in = inputs.shape[-1] // self.feature_group_count
    kernel_shape = (*window, c_in, self.features)
    kernel = kernel_of(self, kernel_shape, self.kernel_init)
    kernel = masked(kernel, self.mask)
    bias = None
    if self.use_bias:
      bias = self.param(
        "bias", self.bias_init, (self.features,), self.param_dtype
      )
    return convolve(
      self,
      inputs,
      kernel,
      bias,
      recipe,
      strength=strength,
      key=quantize_key(self, recipe, inputs, kernel),
    )


def masked(kernel: Any, mask: Array | None) -> Any:
  """Returns a kernel times a mask.

  Raises:
    ValueError: for a mask of another shape, or codes, which are those of the
      kernel without a mask.
  """
  if mask is None:
    return kernel
  if mask.shape != kernel.shape:
    raise ValueError(
      f"mask has the shape {mask.shape}, which must be that of the kernel,"
      f" {kernel.shape}"
    )
  if isinstance(kernel, QTensor):
    raise ValueError("a layer with a mask takes no codes in place of a kernel")
  return kernel * mask


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
  padding = linear.canonicalize_padding(layer.padding, rank)
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


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
  values = as_tuple(1 if value is None else value)
  return values if np.ndim(value) else values * rank
