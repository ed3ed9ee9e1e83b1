"""``BitConv``: a convolution whose kernel and input are quantized."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import linear
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers.arguments import as_tuple, check_sizes, replaces_product
from bitnet_jax.layers.dense import QuantizedLayer
from bitnet_jax.ops.operands import quantize_operands
from bitnet_jax.ops.products import PRODUCT, multiply
from bitnet_jax.ops.xla_conv import Window
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.types import QTensor

Pad = Callable[[Array], Array]
_PAD_MODES = {"CIRCULAR": "wrap", "REFLECT": "reflect"}


class BitConv(QuantizedLayer, nn.Conv):
  """``nn.Conv`` whose kernel and input are quantized by a recipe.

  Has the parameters of ``nn.Conv``, ``kernel`` [*window, c_in / groups,
  features] and ``bias`` [features], and its arguments in their order. One
  example is one token: the norm and the activation scale run over its whole
  space and all its channels, so that a one-channel image keeps its content.
  Stochastic rounding draws from the random stream "quantize".

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
    dtype: dtype of the output; by default what input and parameters promote
      to.
    param_dtype: dtype of the latent weights.
    precision: of the products with an operand in float, backward ones too.
    kernel_init: initializer of the kernel. To shard it, wrap this in
      ``nn.with_logical_partitioning``.
    bias_init: initializer of the bias.
    promote_dtype: as in ``nn.Conv``, like the next two; another value than the
      default is for the recipe "float" only.
    conv_general_dilated: convolution to use, for "float" only.
    conv_general_dilated_cls: class of the convolution to use, for "float" only.
    recipe: a ``Recipe``, the name of one in ``RECIPES``, or (pattern, recipe)
      rules, of which the first that matches the path of the layer applies.

  Example:
    >>> import jax
    >>> from bitnet_jax import BitConv
    >>> images = jax.numpy.ones((2, 8, 8, 3))
    >>> layer = BitConv(16, (3, 3), strides=2)
    >>> variables = layer.init(jax.random.key(0), images)
    >>> layer.apply(variables, images).shape
    (2, 4, 4, 16)
  """

  # As in Flax, whose type annotation cannot be checked.
  promote_dtype: Any = linear.promote_dtype

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
        its codes from ``ops.quantize_input``.
      strength: fraction of quantization, in [0, 1], to phase it in; ``None``
        quantizes fully and multiplies integers.

    Returns:
      Array ``[*batch, *spatial_out, features]``.

    Raises:
      ValueError: for too few axes, channels that the groups do not divide,
        causal padding of more than one axis, or a mask that does not fit.
    """
    recipe = self.find_recipe()
    if replaces_product(self, nn.Conv, recipe):
      return checkpoint_name(super().__call__(inputs), PRODUCT)
    shape = as_tuple(self.kernel_size)
    check_input(inputs, shape, self.feature_group_count, self.features)
    c_in = inputs.shape[-1] // self.feature_group_count
    kernel = masked(self.find_kernel((*shape, c_in, self.features)), self.mask)
    bias = self.find_bias((self.features,))
    window, pad = make_window(
      shape,
      strides=self.strides,
      padding=self.padding,
      input_dilation=self.input_dilation,
      kernel_dilation=self.kernel_dilation,
      groups=self.feature_group_count,
    )
    return convolve(
      inputs,
      kernel,
      bias,
      recipe,
      window=window,
      pad=pad,
      strength=strength,
      **self.product_options(recipe, inputs, kernel, bias),
    )


def masked(kernel: Any, mask: Array | None) -> Any:
  """Returns a kernel times a mask.

  Raises:
    ValueError: for a mask of another shape, or for codes, which are those of
      the kernel without a mask.
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


def make_window(
  shape: Sequence[int],
  *,
  strides: Any,
  padding: Any,
  input_dilation: Any,
  kernel_dilation: Any,
  groups: int,
) -> tuple[Window, Pad | None]:
  """Returns the window of a convolution, and a function that pads its input.

  Args:
    shape: shape of the window.
    strides: one, or one for each spatial axis; ``None`` for 1.
    padding: see ``BitConv``; XLA does not support "CIRCULAR" and "REFLECT".
    input_dilation: like ``strides``.
    kernel_dilation: like ``strides``.
    groups: number of groups of channels.

  Raises:
    ValueError: for causal padding of more than one axis.
  """
  rank, pad = len(shape), None
  strides, input_dilation, kernel_dilation = (
    _per_axis(value, rank)
    for value in (strides, input_dilation, kernel_dilation)
  )
  padding = linear.canonicalize_padding(padding, rank)
  reach = [(k - 1) * d for k, d in zip(shape, kernel_dilation, strict=True)]
  if padding == "CAUSAL":
    if rank != 1:
      raise ValueError(
        f"padding is 'CAUSAL', which takes one spatial axis, not {rank}"
      )
    padding = ((reach[0], 0),)
  elif isinstance(padding, str) and padding in _PAD_MODES:
    pads = [(0, 0), *((r // 2, r - r // 2) for r in reach), (0, 0)]
    pad = functools.partial(jnp.pad, pad_width=pads, mode=_PAD_MODES[padding])
    padding = "VALID"
  window = Window(strides, padding, input_dilation, kernel_dilation, groups)
  return window, pad


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
  values = as_tuple(1 if value is None else value)
  return values if np.ndim(value) else values * rank


def convolve(
  x: Num[Array, "..."] | QTensor,
  kernel: Any,
  bias: Array | None,
  recipe: Recipe,
  *,
  window: Window,
  pad: Pad | None,
  strength: ArrayLike | None,
  key: Array | None,
  precision: Any,
  dtype: Any,
) -> Num[Array, "..."]:
  """Convolves ``quantize(norm(x))`` with ``quantize(kernel)``.

  Args:
    x: ``[*batch, *spatial, c_in]``, or its codes from ``ops.quantize_input``.
    kernel: latent weights, or codes.
    bias: [features], or ``None``.
    recipe: recipe of the layer.
    window: from ``make_window``, like ``pad``.
    pad: pads the normalized input.
    strength: fraction of quantization; ``None`` quantizes fully.
    key: for stochastic rounding.
    precision: precision of convolutions with an operand in float.
    dtype: dtype of the result.
  """
  rank = kernel.ndim - 2
  batch_shape = x.shape[: -rank - 1]
  x = jax.tree.map(
    # A scale too has the axes of a batch of examples.
    lambda a: a.reshape(math.prod(a.shape[: -rank - 1]), *a.shape[-rank - 1 :]),
    x,
  )
  axes = tuple(range(1, x.ndim))
  quantized, w = quantize_operands(
    x, kernel, recipe, axes=axes, pad=pad, strength=strength, key=key
  )
  y = multiply(
    quantized,
    w,
    recipe,
    window=window,
    bias=bias,
    key=key,
    precision=precision,
    dtype=dtype,
  )
  return y.reshape(*batch_shape, *y.shape[1:])
