"""``nnx.Linear``, ``nnx.LinearGeneral`` and ``nnx.Conv`` in integers."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers.conv import check_input, convolve
from bitnet_jax.layers.dense import dense_general, result_dtype
from bitnet_jax.ops import bit_dot
from bitnet_jax.ops.operands import prepare_input
from bitnet_jax.quantizers.recipe import RECIPES, Recipe, RecipeLike, get_recipe
from bitnet_jax.types import QTensor

# The random stream of stochastic rounding.
STREAM = "quantize"
# What the namesakes take, and integers cannot honour.
_REFUSED = (
  "conv_general_dilated",
  "dot_general",
  "dot_general_cls",
  "mask",
  "preferred_element_type",
  "promote_dtype",
)


class BitLinear(nnx.Linear):
  """``nnx.Linear`` whose kernel and input are quantized by a recipe.

  See ``BitDense``, its twin: it has the parameters and arguments of
  ``nnx.Linear``. Stochastic rounding draws from the stream "quantize" of
  ``rngs``. Frozen kernels are for Linen modules only.

  Args:
    in_features: size of the last axis of the input.
    out_features: size of the last axis of the output.
    recipe: a ``Recipe`` or the name of one in ``RECIPES``.
    rngs: random keys.
    **options: see ``nnx.Linear``.

  Raises:
    ValueError: for an unknown recipe, or an option that integers cannot honour.
  """

  recipe: Recipe

  def __init__(
    self,
    in_features: int,
    out_features: int,
    *,
    recipe: RecipeLike = RECIPES["b158"],
    rngs: nnx.Rngs,
    **options: Any,
  ):
    _check_options("BitLinear", options)
    super().__init__(in_features, out_features, rngs=rngs, **options)
    set_recipe(self, get_recipe(recipe), rngs)

  def __call__(
    self,
    inputs: Num[Array, "*batch d_in"] | QTensor,
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "*batch d_out"]:
    """Returns ``quantize(norm(inputs)) . quantize(kernel) + bias``.

    Args:
      inputs: of the layer, or what ``quantize_input`` made of them.
      strength: share of quantization in force, see ``bit_dot``.
    """
    kernel, bias = _parameters(self)
    return bit_dot(
      prepare_input(inputs, self.recipe, strength=strength),
      kernel,
      self.recipe,
      bias=bias,
      strength=strength,
      key=_key(self),
      precision=self.precision,
      dtype=result_dtype(self, inputs, kernel, bias),
    )


class BitLinearGeneral(nnx.LinearGeneral):
  """``nnx.LinearGeneral`` whose kernel and input are quantized by a recipe.

  See ``BitLinear`` and ``BitDenseGeneral``. The contracted axes together are
  one token; with ``batch_axis`` each of the stacked kernels has its own scales.

  Args:
    in_features: sizes of the contracted axes.
    out_features: sizes of the output axes.
    recipe: see ``BitLinear``.
    rngs: see ``BitLinear``.
    **options: see ``nnx.LinearGeneral``.

  Raises:
    ValueError: see ``BitLinear``.
  """

  recipe: Recipe

  def __init__(
    self,
    in_features: int | Sequence[int],
    out_features: int | Sequence[int],
    *,
    recipe: RecipeLike = RECIPES["b158"],
    rngs: nnx.Rngs,
    **options: Any,
  ):
    _check_options("BitLinearGeneral", options)
    super().__init__(in_features, out_features, rngs=rngs, **options)
    set_recipe(self, get_recipe(recipe), rngs)

  def __call__(
    self,
    inputs: Num[Array, "..."] | QTensor,
    *,
    strength: ArrayLike | None = None,
    out_sharding: Any = None,
  ) -> Num[Array, "..."]:
    """Contracts axes of the input with the kernel; see ``BitDenseGeneral``."""
    if out_sharding is not None:
      raise ValueError("BitLinearGeneral does not support out_sharding")
    kernel, bias = _parameters(self)
    return dense_general(
      self,
      inputs,
      kernel,
      bias,
      self.recipe,
      contracted=tuple(axis % inputs.ndim for axis in self.axis),
      n_batch=len(self.batch_axis),
      strength=strength,
      key=_key(self),
    )


class BitConv(nnx.Conv):
  """``nnx.Conv`` whose kernel and input are quantized by a recipe.

  See ``BitLinear``, and ``BitConv`` of Linen: one example is one token.

  Args:
    in_features: number of input channels.
    out_features: number of output channels.
    kernel_size: size of the window along each spatial axis.
    strides: see ``nnx.Conv``.
    recipe: see ``BitLinear``.
    rngs: see ``BitLinear``.
    **options: see ``nnx.Conv``.

  Raises:
    ValueError: see ``BitLinear``.
  """

  recipe: Recipe

  def __init__(
    self,
    in_features: int,
    out_features: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] | None = 1,
    *,
    recipe: RecipeLike = RECIPES["b158"],
    rngs: nnx.Rngs,
    **options: Any,
  ):
    _check_options("BitConv", options)
    super().__init__(
      in_features, out_features, kernel_size, strides, rngs=rngs, **options
    )
    set_recipe(self, get_recipe(recipe), rngs)

  def __call__(
    self,
    inputs: Num[Array, "..."] | QTensor,
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "..."]:
    """Convolves the input with the kernel; see ``BitConv`` of Linen."""
    kernel, bias = _parameters(self)
    window = kernel.shape[:-2]
    check_input(inputs, window, self.feature_group_count, kernel.shape[-1])
    return convolve(
      self,
      inputs,
      kernel,
      bias,
      self.recipe,
      strength=strength,
      key=_key(self),
    )


def set_recipe(layer: Any, recipe: Recipe, rngs: nnx.Rngs | None) -> None:
  """Gives a layer its recipe, and random keys if the recipe rounds by them.

  Raises:
    ValueError: if it does, and there are none.
  """
  layer.recipe = recipe
  layer.keys = nnx.data(None)
  if recipe.needs_key:
    if rngs is None:
      raise ValueError(
        "the recipe rounds stochastically, which needs rngs; none were given"
      )
    layer.keys = rngs[STREAM].fork()


def _check_options(name: str, options: Mapping[str, Any]) -> None:
  for option in _REFUSED:
    if options.get(option) is not None:
      raise ValueError(f"{name} does not support {option}")


def _parameters(layer: Any) -> tuple[jax.Array, jax.Array | None]:
  bias = None if layer.bias is None else layer.bias[...]
  return layer.kernel[...], bias


def _key(layer: Any) -> jax.Array | None:
  return layer.keys() if layer.recipe.needs_key else None
