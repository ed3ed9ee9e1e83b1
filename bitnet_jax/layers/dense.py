"""Dense layers whose kernel and input are quantized by a recipe."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from flax.linen import linear
from flax.linen.dtypes import canonicalize_dtype
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers.arguments import (
  as_tuple,
  check_sizes,
  contracted_axes,
  defaults_of,
  own_options,
  run_namesake,
)
from bitnet_jax.ops import bit_dot
from bitnet_jax.ops.operands import prepare_input
from bitnet_jax.ops.packing import unpacked
from bitnet_jax.ops.product import draws
from bitnet_jax.quantizers.recipe import (
  RECIPES,
  Recipe,
  RecipeLike,
  get_recipe,
)
from bitnet_jax.types import QTensor

default_kernel_init = nn.initializers.lecun_normal()


def quantize_key(
  module: nn.Module, recipe: Recipe, *operands: Any
) -> jax.Array | None:
  """Draws from the stream "quantize", if something rounds by it.

  A gradient that is rounded stochastically needs no stream where none is taken.

  Args:
    module: the layer.
    recipe: of the layer.
    *operands: input and kernel; codes are rounded already.
  """
  if draws(recipe, *operands):
    return module.make_rng("quantize")
  has_stream = module.has_rng("quantize") or module.has_rng("params")
  return (
    module.make_rng("quantize") if recipe.needs_key and has_stream else None
  )


def result_dtype(module: Any, x: Any, kernel: Any, bias: Any) -> Any:
  """Returns the ``dtype`` of a layer, or what its operands promote to.

  As in ``nn.Dense``; a frozen kernel, which has no floats, counts as one of the
  layer's ``param_dtype``. A ``preferred_element_type``, which layers of NNX may
  have, is that of the product, to which the bias is added.
  """
  dtypes = [x.dtype, kernel.dtype] + ([] if bias is None else [bias.dtype])
  if isinstance(kernel, QTensor) and kernel.latent is None:
    dtypes[1] = module.param_dtype
  # In NumPy, of which Flax takes dtypes that JAX has turned off, as float64.
  arrays = [np.zeros((), dtype) for dtype in dtypes]
  dtype = canonicalize_dtype(*arrays, dtype=module.dtype)
  preferred = getattr(module, "preferred_element_type", None)
  if preferred is None:
    return dtype
  return jnp.promote_types(preferred, preferred if bias is None else dtype)


def kernel_of(
  module: Any, shape: tuple[int, ...], init: nn.initializers.Initializer
) -> jax.Array | QTensor:
  """Returns the parameter "kernel" of a layer; it may be there as codes."""
  if module.has_variable("params", "kernel"):
    kernel = module.get_variable("params", "kernel")
    if isinstance(kernel, QTensor) and kernel.shape == shape:
      return kernel
  return module.param("kernel", init, shape, module.param_dtype)


class BitDense(nn.Module):
  """``nn.Dense`` whose kernel and input are quantized by a recipe.

  Has the parameters of ``nn.Dense``, ``kernel`` [d_in, features] and ``bias``
  [features], so that a full-precision checkpoint loads as latent weights, and
  its arguments in their order. Stochastic rounding draws from the random
  stream "quantize". Differentiable in reverse mode only.

  Attributes:
    features: size of the last axis of the output.
    use_bias: whether to add a bias.
    dtype: dtype of the output; by default what input and parameters promote
      to. Scales come from the operands before they are cast to it.
    param_dtype: dtype of the latent weights.
    precision: of the products with an operand in float, backward ones too.
    kernel_init: initializer of the kernel. To shard it, wrap this in
      ``nn.with_logical_partitioning``.
    bias_init: initializer of the bias.
    promote_dtype: as in ``nn.Dense``, like the next two; another value than the
      default is for the recipe "float" only.
    dot_general: see ``promote_dtype``.
    dot_general_cls: see ``promote_dtype``.
    recipe: a ``Recipe`` or the name of one in ``RECIPES``.

  Raises:
    TypeError: for features that are no integer.
    ValueError: for less than one, an unknown recipe, or an option that a
      quantized product cannot honour.
  """

  features: int
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  kernel_init: nn.initializers.Initializer = default_kernel_init
  bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
  promote_dtype: Any = linear.promote_dtype
  dot_general: Any = None
  dot_general_cls: Any = None
  _: dataclasses.KW_ONLY
  recipe: RecipeLike = RECIPES["b158"]

  def __post_init__(self):
    check_sizes(type(self).__name__, "features", features=self.features)
    super().__post_init__()

  @nn.compact
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
    recipe = get_recipe(self.recipe)
    if own_options(self, defaults_of(linear.Dense)):
      return run_namesake(self, linear.Dense, recipe, inputs)
    shape = (inputs.shape[-1], self.features)
    kernel = kernel_of(self, shape, self.kernel_init)
    bias = None
    if self.use_bias:
      bias = self.param(
        "bias", self.bias_init, (self.features,), self.param_dtype
      )
    dtype = result_dtype(self, inputs, kernel, bias)
    return bit_dot(
      prepare_input(inputs, recipe, strength=strength),
      kernel,
      recipe,
      bias=bias,
      strength=strength,
      key=quantize_key(self, recipe, inputs, kernel),
      precision=self.precision,
      dtype=dtype,
    )


class BitDenseGeneral(nn.Module):
  """``nn.DenseGeneral`` whose kernel and input are quantized by a recipe.

  Parameters: ``kernel`` [*batch_dims, *contracted, *features] and ``bias``
  [*batch_dims, *features], as in ``nn.DenseGeneral``. The contracted axes
  together are one token. With ``batch_dims`` each of the stacked kernels has
  scales of its own.

  Attributes:
    features: size, or sizes, of the output axes.
    axis: axis, or axes, of the input that are contracted.
    batch_dims: leading axes of the input with a kernel for each index.
    use_bias: see ``BitDense``, like the rest.
    dtype: see ``BitDense``.
    param_dtype: see ``BitDense``.
    kernel_init: see ``BitDense``; gets the kernel's shape with the contracted
      axes as one and the features as one.
    bias_init: see ``BitDense``.
    precision: see ``BitDense``.
    promote_dtype: see ``BitDense``.
    dot_general: see ``BitDense``.
    dot_general_cls: see ``BitDense``.
    recipe: see ``BitDense``.
  """

  features: int | Sequence[int]
  axis: int | Sequence[int] = -1
  batch_dims: Sequence[int] = ()
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: nn.initializers.Initializer = default_kernel_init
  bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
  precision: Any = None
  promote_dtype: Any = linear.promote_dtype
  dot_general: Any = None
  dot_general_cls: Any = None
  _: dataclasses.KW_ONLY
  recipe: RecipeLike = RECIPES["b158"]

  def __post_init__(self):
    check_sizes(type(self).__name__, features=self.features)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    inputs: Num[Array, "..."] | QTensor,
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "..."]:
    """Contracts ``axis`` of the input with the kernel.

    Args:
      inputs: of the layer, or what ``quantize_input`` made of them.
      strength: share of quantization in force, see ``bit_dot``.

    Returns:
      Array of the batch axes, the other axes that were not contracted, and
      the features, in this order.

    Raises:
      ValueError: if ``batch_dims`` are not the leading axes, or ``axis`` does
        not name other ones.
    """
    recipe = get_recipe(self.recipe)
    if own_options(self, defaults_of(linear.DenseGeneral)):
      return run_namesake(self, linear.DenseGeneral, recipe, inputs)
    features, batch_dims = as_tuple(self.features), as_tuple(self.batch_dims)
    n_batch = len(batch_dims)
    if {d % inputs.ndim for d in batch_dims} != set(range(n_batch)):
      raise ValueError(
        f"batch_dims is {self.batch_dims}; they must be the leading axes"
      )
    contracted = contracted_axes(self.axis, ndim=inputs.ndim, n_batch=n_batch)
    batch_shape = inputs.shape[:n_batch]
    contracted_shape = tuple(inputs.shape[a] for a in contracted)
    d_in, d_out = int(np.prod(contracted_shape)), int(np.prod(features))
    n_kernels = int(np.prod(batch_shape))

    kernel = kernel_of(
      self,
      (*batch_shape, *contracted_shape, *features),
      _reshaped(self.kernel_init, (n_kernels * d_in, d_out)),
    )
    if isinstance(kernel, QTensor):
      kernel = unpacked(kernel)
    bias = None
    if self.use_bias:
      bias = self.param(
        "bias",
        _reshaped(self.bias_init, (n_kernels * d_out,)),
        (*batch_shape, *features),
        self.param_dtype,
      )
    return dense_general(
      self,
      inputs,
      kernel,
      bias,
      recipe,
      contracted=contracted,
      n_batch=n_batch,
      strength=strength,
      key=quantize_key(self, recipe, inputs, kernel),
    )


def dense_general(
  layer: Any,
  x: Num[Array, "..."] | QTensor,
  kernel: Any,
  bias: Array | None,
  recipe: Recipe,
  *,
  contracted: tuple[int, ...],
  n_batch: int,
  strength: ArrayLike | None,
  key: Array | None,
) -> Num[Array, "..."]:
  """Contracts axes of ``x`` with a kernel, both quantized.

  Args:
    layer: of Linen or of NNX, whose dtypes and precision hold.
    x: input, or what ``quantize_input`` made of it.
    kernel: [*batch, *contracted, *features], not packed.
    bias: [*batch, *features], or ``None``.
    recipe: of the layer.
    contracted: axes of ``x``, none of them negative.
    n_batch: number of leading axes with a kernel for each index.
    strength: share of quantization in force, see ``bit_dot``.
    key: for stochastic rounding.

  Returns:
    Array of the batch axes, the other axes that were not contracted, and the
    features, in this order.
  """
  dtype = result_dtype(layer, x, kernel, bias)
  n_in = len(contracted)
  n_out = kernel.ndim - n_batch - n_in
  batch_shape = kernel.shape[:n_batch]
  features = kernel.shape[n_batch + n_in :]
  kept = [a for a in range(n_batch, x.ndim) if a not in contracted]
  kept_shape = tuple(x.shape[a] for a in kept)
  # Scales have the axes of what they scale, so that these steps suit them.
  order = (*range(n_batch), *kept, *contracted)
  x = jax.tree.map(lambda a: jnp.transpose(a, order), x)
  x = jax.tree.map(lambda a: _merge_last(a, n_in), x)
  x = prepare_input(x, recipe, strength=strength)
  kernel = jax.tree.map(
    lambda a: _merge_last(_merge_last(a, n_out), n_in, before=1), kernel
  )
  if bias is not None:
    bias = bias.reshape(*batch_shape, math.prod(features))

  def dot(x, kernel, bias, key):
    return bit_dot(
      x,
      kernel,
      recipe,
      bias=bias,
      strength=strength,
      key=key,
      precision=layer.precision,
      dtype=dtype,
    )

  if key is not None and batch_shape:
    key = jax.random.split(key, batch_shape)
  for _ in batch_shape:
    dot = jax.vmap(dot)
  y = dot(x, kernel, bias, key)
  return y.reshape(*batch_shape, *kept_shape, *features)


def _merge_last(a, n, *, before=0):
  """Makes one axis of the last ``n``, or of those ``before`` the last."""
  stop = a.ndim - before
  merged = math.prod(a.shape[stop - n : stop])
  return a.reshape(*a.shape[: stop - n], merged, *a.shape[stop:])


def _reshaped(init, flat_shape):
  """An initializer that draws in ``flat_shape``, so that fans are right."""

  def draw(key, shape, dtype):
    value = init(key, flat_shape, dtype)
    if isinstance(value, meta.AxisMetadata):
      return meta.replace_boxed(value, value.unbox().reshape(shape))
    return value.reshape(shape)

  return draw
