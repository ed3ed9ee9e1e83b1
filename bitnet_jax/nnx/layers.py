"""``nnx.Linear``, ``nnx.LinearGeneral`` and ``nnx.Conv`` in integers."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers import provenance
from bitnet_jax.layers.arguments import (
  check_sizes,
  contracted_axes,
  replaces_product,
)
from bitnet_jax.layers.conv import check_input, convolve, make_window, masked
from bitnet_jax.layers.dense import result_dtype
from bitnet_jax.layers.dense_general import dense_general
from bitnet_jax.layers.signatures import Readable
from bitnet_jax.ops.operands import draws, quantize_operands
from bitnet_jax.ops.packing import unpacked
from bitnet_jax.ops.products import PRODUCT, multiply
from bitnet_jax.quantizers.recipe import RECIPES, Recipe, RecipeLike, get_recipe
from bitnet_jax.types import QTensor

# The random stream of stochastic rounding.
STREAM = "quantize"
# The attribute with the path of a layer, while ``bit_layers`` traces a model.
TRACED_PATH = "traced_path"
_TWINS = (nnx.Linear, nnx.LinearGeneral, nnx.Conv)


class BitLinear(nnx.Linear):
  """``nnx.Linear`` whose kernel and input are quantized by a recipe.

  The NNX twin of ``BitDense``. Has the parameters and arguments of
  ``nnx.Linear``, so that a full-precision checkpoint loads as latent weights.
  Stochastic rounding draws from the stream "quantize" of ``rngs``.
  Differentiable in reverse mode only. ``inference.freeze`` puts codes in place
  of the kernel.

  Args:
    in_features: size of the last axis of the input.
    out_features: size of the last axis of the output.
    recipe: a ``Recipe`` or the name of one in ``RECIPES``.
    rngs: random keys.
    **options: other arguments of ``nnx.Linear``.

  Raises:
    TypeError: for features that are no integer.
    ValueError: for less than one, an unknown recipe, or an option that a
      quantized product cannot honour.

  Example:
    >>> import jax
    >>> from bitnet_jax.nnx import BitLinear
    >>> from flax import nnx
    >>> layer = BitLinear(8, 4, recipe="b158_median", rngs=nnx.Rngs(0))
    >>> layer(jax.numpy.ones((2, 8))).shape
    (2, 4)
  """

  recipe: Recipe
  __signature__: Any = Readable()

  def __init__(
    self,
    in_features: int,
    out_features: int,
    *,
    recipe: RecipeLike = RECIPES["b158"],
    rngs: nnx.Rngs,
    **options: Any,
  ):
    sizes = {"in_features": in_features, "out_features": out_features}
    check_sizes("BitLinear", *sizes, **sizes)
    super().__init__(in_features, out_features, rngs=rngs, **options)
    set_recipe(self, get_recipe(recipe), rngs)

  def __call__(
    self,
    inputs: Num[Array, "*batch d_in"] | QTensor,
    out_sharding: Any = None,
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "*batch d_out"]:
    """Returns ``quantize(norm(inputs)) . quantize(kernel) + bias``.

    Args:
      inputs: input of the layer, or its codes from ``ops.quantize_input``.
      out_sharding: of the result, over axes of a mesh that are explicit.
      strength: fraction of quantization, in [0, 1], to phase it in; ``None``
        quantizes fully and multiplies integers.
    """
    if self.recipe.is_float:
      return _in_float(super().__call__, inputs, out_sharding)
    kernel, bias = _parameters(self)
    options = _product_options(self, inputs, kernel, bias)
    x, w = quantize_operands(
      inputs, kernel, self.recipe, strength=strength, key=options["key"]
    )
    y = multiply(x, w, self.recipe, bias=bias, **options)
    return _sharded(y, out_sharding)


class BitLinearGeneral(nnx.LinearGeneral):
  """``nnx.LinearGeneral`` whose kernel and input are quantized by a recipe.

  The NNX twin of ``BitDenseGeneral``. The contracted axes together are one
  token; with ``batch_axis`` each of the stacked kernels has its own scales.

  Args:
    in_features: sizes of the contracted axes.
    out_features: sizes of the output axes.
    recipe: a ``Recipe`` or the name of one in ``RECIPES``.
    rngs: random keys; the stream "quantize" is for stochastic rounding.
    **options: other arguments of ``nnx.LinearGeneral``.

  Raises:
    TypeError: for features that are no integers.
    ValueError: for less than one, an unknown recipe, or an option that a
      quantized product cannot honour.

  Example:
    >>> import jax
    >>> from bitnet_jax.nnx import BitLinearGeneral
    >>> from flax import nnx
    >>> rngs = nnx.Rngs(0)
    >>> layer = BitLinearGeneral((3, 8), (4, 5), axis=(-2, -1), rngs=rngs)
    >>> layer(jax.numpy.ones((2, 3, 8))).shape
    (2, 4, 5)
  """

  recipe: Recipe
  __signature__: Any = Readable()

  def __init__(
    self,
    in_features: int | Sequence[int],
    out_features: int | Sequence[int],
    *,
    recipe: RecipeLike = RECIPES["b158"],
    rngs: nnx.Rngs,
    **options: Any,
  ):
    check_sizes(
      "BitLinearGeneral", in_features=in_features, out_features=out_features
    )
    super().__init__(in_features, out_features, rngs=rngs, **options)
    set_recipe(self, get_recipe(recipe), rngs)

  def __call__(
    self,
    inputs: Num[Array, "..."] | QTensor,
    out_sharding: Any = None,
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "..."]:
    """Contracts ``axis`` of the input with the kernel, both quantized.

    Args:
      inputs: input of the layer, or its codes from ``ops.quantize_input``.
      out_sharding: of the result, over axes of a mesh that are explicit.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.
    """
    if self.recipe.is_float:
      return _in_float(super().__call__, inputs, out_sharding)
    kernel, bias = _parameters(self)
    kernel = unpacked(kernel) if isinstance(kernel, QTensor) else kernel
    n_batch = len(self.batch_axis)
    y = dense_general(
      inputs,
      kernel,
      bias,
      self.recipe,
      contracted=contracted_axes(self.axis, ndim=inputs.ndim, n_batch=n_batch),
      n_batch=n_batch,
      strength=strength,
      **_product_options(self, inputs, kernel, bias),
    )
    return _sharded(y, out_sharding)


class BitConv(nnx.Conv):
  """``nnx.Conv`` whose kernel and input are quantized by a recipe.

  The NNX twin of ``BitConv``. One example is one token: the norm and the
  activation scale run over its whole space and all its channels.

  Args:
    in_features: number of input channels.
    out_features: number of output channels.
    kernel_size: size of the window along each spatial axis.
    strides: one for all axes, or one for each.
    recipe: a ``Recipe`` or the name of one in ``RECIPES``.
    rngs: random keys; the stream "quantize" is for stochastic rounding.
    **options: other arguments of ``nnx.Conv``.

  Raises:
    TypeError: for sizes that are no integers.
    ValueError: for less than one, an unknown recipe, or an option that a
      quantized product cannot honour.

  Example:
    >>> import jax
    >>> from bitnet_jax.nnx import BitConv
    >>> from flax import nnx
    >>> layer = BitConv(3, 16, (3, 3), strides=2, rngs=nnx.Rngs(0))
    >>> layer(jax.numpy.ones((2, 8, 8, 3))).shape
    (2, 4, 4, 16)
  """

  recipe: Recipe
  __signature__: Any = Readable()

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
    sizes = {"in_features": in_features, "out_features": out_features}
    check_sizes(
      "BitConv", *sizes, **sizes, kernel_size=kernel_size, strides=strides
    )
    super().__init__(
      in_features, out_features, kernel_size, strides, rngs=rngs, **options
    )
    set_recipe(self, get_recipe(recipe), rngs)

  def __call__(
    self,
    inputs: Num[Array, "..."] | QTensor,
    out_sharding: Any = None,
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "..."]:
    """Convolves ``quantize(norm(inputs))`` with ``quantize(kernel)``.

    Args:
      inputs: ``[*batch, *spatial, c_in]``, or its codes from
        ``ops.quantize_input``.
      out_sharding: of the result, over axes of a mesh that are explicit.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.
    """
    if self.recipe.is_float:
      return _in_float(super().__call__, inputs, out_sharding)
    kernel, bias = _parameters(self)
    *window, _, c_out = kernel.shape
    check_input(inputs, window, self.feature_group_count, c_out)
    kernel = masked(kernel, self.mask)
    window, pad = make_window(
      kernel.shape[:-2],
      strides=self.strides,
      padding=self.padding,
      input_dilation=self.input_dilation,
      kernel_dilation=self.kernel_dilation,
      groups=self.feature_group_count,
    )
    y = convolve(
      inputs,
      kernel,
      bias,
      self.recipe,
      window=window,
      pad=pad,
      strength=strength,
      **_product_options(self, inputs, kernel, bias),
    )
    return _sharded(y, out_sharding)


def set_recipe(layer: Any, recipe: Recipe, rngs: nnx.Rngs | None) -> None:
  """Sets the recipe of a layer, and its random keys if needed.

  Raises:
    ValueError: if the recipe needs random keys and there are none, or if it
      quantizes and the layer has an option that a quantized product cannot
      honour.
  """
  twin = next(kind for kind in _TWINS if isinstance(layer, kind))
  replaces_product(layer, twin, recipe)
  layer.recipe = recipe
  layer.keys = nnx.data(None)
  if recipe.needs_key:
    if rngs is None:
      raise ValueError(
        "the recipe rounds stochastically, which needs rngs; none were given"
      )
    layer.keys = rngs[STREAM].fork()


def _in_float(twin: Any, inputs: Any, out_sharding: Any) -> Array:
  """Calls the twin in Flax."""
  given = {} if out_sharding is None else {"out_sharding": out_sharding}
  return checkpoint_name(twin(inputs, **given), PRODUCT)


def _sharded(y: Array, out_sharding: Any) -> Array:
  return y if out_sharding is None else jax.sharding.reshard(y, out_sharding)


def _parameters(layer: Any) -> tuple[Any, jax.Array | None]:
  """Returns the kernel, latent weights or codes in their place, and bias."""
  kernel = layer.kernel.get_value()
  traced_path = getattr(layer, TRACED_PATH, None)
  if traced_path is not None:
    provenance.mark(kernel, traced_path)
  return kernel, None if layer.bias is None else layer.bias[...]


def _product_options(layer: Any, x: Any, kernel: Any, bias: Any) -> dict:
  """Returns the key, precision and output dtype of a layer's product."""
  is_frozen = isinstance(kernel, QTensor) and kernel.latent is None
  needs_key = layer.recipe.needs_key and not is_frozen
  needs_key = needs_key or draws(layer.recipe, x, kernel)
  return {
    "key": layer.keys() if needs_key else None,
    "precision": layer.precision,
    "dtype": result_dtype(
      x,
      kernel,
      bias,
      dtype=layer.dtype,
      param_dtype=layer.param_dtype,
      preferred=layer.preferred_element_type,
    ),
  }
