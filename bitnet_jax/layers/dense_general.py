"""``BitDenseGeneral``: a dense layer over any axes, with its product."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta
from flax.linen import linear
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers.arguments import (
  as_tuple,
  check_sizes,
  contracted_axes,
  replaces_product,
)
from bitnet_jax.layers.dense import QuantizedLayer
from bitnet_jax.ops import bit_dot
from bitnet_jax.ops.operands import prepare_input
from bitnet_jax.ops.packing import unpacked
from bitnet_jax.ops.products import PRODUCT
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.types import QTensor


class BitDenseGeneral(QuantizedLayer, nn.DenseGeneral):
  """``nn.DenseGeneral`` whose kernel and input are quantized by a recipe.

  Parameters: ``kernel`` [*batch_dims, *contracted, *features] and ``bias``
  [*batch_dims, *features], as in ``nn.DenseGeneral``. The contracted axes
  together are one token. With ``batch_dims`` each of the stacked kernels has
  its own scales. Stochastic rounding draws from the stream "quantize".

  Attributes:
    features: size, or sizes, of the output axes.
    axis: axis, or axes, of the input that are contracted.
    batch_dims: leading axes of the input with a kernel for each index.
    use_bias: whether to add a bias.
    dtype: dtype of the output; by default what input and parameters promote
      to.
    param_dtype: dtype of the latent weights.
    kernel_init: initializer of the kernel, which gets its shape with the
      contracted axes as one and the features as one.
    bias_init: initializer of the bias.
    precision: of the products with an operand in float, backward ones too.
    promote_dtype: as in ``nn.DenseGeneral``, like the next two; another value
      than the default is for the recipe "float" only.
    dot_general: product to use, for "float" only.
    dot_general_cls: class of the product to use, for "float" only.
    recipe: a ``Recipe``, the name of one in ``RECIPES``, or (pattern, recipe)
      rules, of which the first that matches the path of the layer applies.

  Example:
    >>> import jax
    >>> from bitnet_jax import BitDenseGeneral
    >>> x = jax.numpy.ones((2, 3, 8))
    >>> layer = BitDenseGeneral((4, 5), axis=(-2, -1))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> layer.apply(variables, x).shape
    (2, 4, 5)
  """

  # As in Flax, whose type annotation cannot be checked.
  promote_dtype: Any = linear.promote_dtype

  def __post_init__(self):
    check_sizes(type(self).__name__, features=self.features)
    super().__post_init__()

  @nn.nowrap
  def stack_and_output_axes(self) -> tuple[int, int]:
    """Returns the numbers of batch dimensions and of output axes."""
    return len(as_tuple(self.batch_dims)), len(as_tuple(self.features))

  @nn.compact
  def __call__(
    self,
    inputs: Num[Array, "..."] | QTensor,
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "..."]:
    """Contracts ``axis`` of the input with the kernel.

    Args:
      inputs: input of the layer, or its codes from ``ops.quantize_input``.
      strength: fraction of quantization, in [0, 1], to phase it in; ``None``
        quantizes fully and multiplies integers.

    Returns:
      Array of the batch axes, the other axes that were not contracted, and
      the features, in this order.

    Raises:
      ValueError: if ``batch_dims`` are not the leading axes, or ``axis`` does
        not name other ones.
    """
    recipe = self.find_recipe()
    if replaces_product(self, nn.DenseGeneral, recipe):
      return checkpoint_name(super().__call__(inputs), PRODUCT)
    features = as_tuple(self.features)
    n_batch, _ = self.stack_and_output_axes()
    if {d % inputs.ndim for d in as_tuple(self.batch_dims)} != {
      *range(n_batch)
    }:
      raise ValueError(
        f"batch_dims is {self.batch_dims}; they must be the leading axes"
      )
    contracted = contracted_axes(self.axis, ndim=inputs.ndim, n_batch=n_batch)
    stack = inputs.shape[:n_batch]
    contracted_shape = tuple(inputs.shape[a] for a in contracted)
    d_in, d_out, n_kernels = map(math.prod, (contracted_shape, features, stack))
    kernel = self.find_kernel(
      (*stack, *contracted_shape, *features),
      _reshaped(self.kernel_init, (n_kernels * d_in, d_out)),
    )
    kernel = unpacked(kernel) if isinstance(kernel, QTensor) else kernel
    bias = self.find_bias(
      (*stack, *features), _reshaped(self.bias_init, (n_kernels * d_out,))
    )
    return dense_general(
      inputs,
      kernel,
      bias,
      recipe,
      contracted=contracted,
      n_batch=n_batch,
      strength=strength,
      **self.product_options(recipe, inputs, kernel, bias),
    )


def dense_general(
  x: Num[Array, "..."] | QTensor,
  kernel: Any,
  bias: Array | None,
  recipe: Recipe,
  *,
  contracted: tuple[int, ...],
  n_batch: int,
  key: Array | None,
  **options: Any,
) -> Num[Array, "..."]:
  """Contracts axes of ``x`` with a kernel, both quantized.

  Args:
    x: input, or its codes from ``ops.quantize_input``.
    kernel: [*batch, *contracted, *features], not packed.
    bias: [*batch, *features], or ``None``.
    recipe: recipe of the layer.
    contracted: axes of ``x``, none of them negative.
    n_batch: number of leading axes with a kernel for each index.
    key: for stochastic rounding.
    **options: strength, precision and dtype of ``bit_dot``.

  Returns:
    Array of the batch axes, the other axes that were not contracted, and the
    features, in this order.
  """
  n_in = len(contracted)
  n_out = kernel.ndim - n_batch - n_in
  stack, features = kernel.shape[:n_batch], kernel.shape[n_batch + n_in :]
  others = [a for a in range(n_batch, x.ndim) if a not in contracted]
  shape = (*stack, *(x.shape[a] for a in others), *features)
  # A scale has the axes of its codes, so these steps apply to it, too.
  order = (*range(n_batch), *others, *contracted)
  x = jax.tree.map(lambda a: _merge_last(jnp.transpose(a, order), n_in), x)
  x = prepare_input(x, recipe, strength=options["strength"])
  kernel = jax.tree.map(
    lambda a: _merge_last(_merge_last(a, n_out), n_in, before=1), kernel
  )
  if bias is not None:
    bias = bias.reshape(*stack, math.prod(features))

  def dot(x, kernel, bias, key):
    return bit_dot(x, kernel, recipe, bias=bias, key=key, **options)

  if key is not None and stack:
    key = jax.random.split(key, stack)
  for _ in stack:
    dot = jax.vmap(dot)
  return dot(x, kernel, bias, key).reshape(shape)


def _merge_last(a, n, *, before=0):
  """Merges the last ``n`` axes, or those ``before`` the last, into one."""
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
