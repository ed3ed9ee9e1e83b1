"""``BitDense``, and the base class of all quantized Linen layers.

A layer resolves its recipe, creates the parameters of its twin in Flax, and
calls a product of ``ops``. ``BitDense.__call__`` shows every step.
"""

import contextlib
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import linear
from flax.linen.dtypes import canonicalize_dtype
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers.arguments import check_sizes, replaces_product
from bitnet_jax.layers.interception import jitted_paths
from bitnet_jax.layers.signatures import readable
from bitnet_jax.ops.operands import draws, quantize_operands
from bitnet_jax.ops.products import PRODUCT, multiply
from bitnet_jax.quantizers.recipe import RECIPES, Recipe, Rules, recipe_at
from bitnet_jax.types import QTensor

# The collection of packed kernels that a scan must not slice, as that copies
# them. In their place in "params" are their numbers in the stack.
STACKS = "stacks"


class QuantizedLayer(nn.Module):
  """Mixin of quantized layers: recipe, kernel, random key and dtype.

  It is mixed into a Flax layer and keeps its fields and parameters.

  Attributes:
    recipe: a ``Recipe``, the name of one in ``RECIPES``, or (pattern, recipe)
      rules, of which the first that matches the path of the layer applies.
  """

  _: dataclasses.KW_ONLY
  recipe: Rules = RECIPES["b158"]

  def __init_subclass__(cls, **options: Any) -> None:
    super().__init_subclass__(**options)
    # Each subclass has a constructor of its own, which Flax makes.
    init: Any = cls.__init__
    init.__signature__ = readable(init)

  @nn.nowrap
  def find_recipe(self) -> Recipe:
    """Returns the recipe of this layer, by its path from the top of the model.

    Raises:
      ValueError: for an unknown recipe, if no rule matches, or under ``nn.jit``
        if the rules depend on the place of the module that it traces.
    """
    recipe = recipe_at(self.recipe, "/".join(self.path))
    if not isinstance(self.recipe, (Recipe, str)):
      _check_traces(self.recipe, self.path, recipe)
    return recipe

  @nn.nowrap
  def stack_and_output_axes(self) -> tuple[int, int]:
    """Returns the numbers of leading and output axes of the kernel.

    The leading axes stack kernels, each with its own scale.
    """
    return 0, 1

  @nn.nowrap
  def scale_axes(self, ndim: int) -> tuple[int, ...]:
    """Returns which of the kernel's ``ndim`` axes share a scale."""
    n_stack, n_out = self.stack_and_output_axes()
    return kernel_scale_axes(self.find_recipe(), ndim, n_stack, n_out)

  @nn.nowrap
  def find_kernel(
    self, shape: tuple[int, ...], init: Any = None
  ) -> jax.Array | QTensor:
    """Returns the parameter "kernel": latent weights, or codes in their place.

    Args:
      shape: shape of the kernel.
      init: initializer; by default ``kernel_init``.
    """
    layer: Any = self
    if self.has_variable("params", "kernel"):
      kernel = self.get_variable("params", "kernel")
      if self.has_variable(STACKS, "kernel"):
        stack = self.get_variable(STACKS, "kernel")
        kernel = kernel.replace(qvalue=stack.replace(index=kernel.qvalue))
      if isinstance(kernel, QTensor) and kernel.shape == shape:
        return kernel
    init = init or layer.kernel_init
    return self.param("kernel", init, shape, layer.param_dtype)

  @nn.nowrap
  def find_bias(
    self, shape: tuple[int, ...], init: Any = None
  ) -> jax.Array | None:
    """Returns the parameter "bias"; ``None`` for a layer without one."""
    layer: Any = self
    if not layer.use_bias:
      return None
    return self.param("bias", init or layer.bias_init, shape, layer.param_dtype)

  @nn.nowrap
  def product_options(
    self, recipe: Recipe, x: Any, kernel: Any, bias: Any
  ) -> dict[str, Any]:
    """Returns the key, precision and output dtype of a product.

    The key comes from the stream "quantize". Stochastic rounding of gradients
    needs no stream if no gradients are computed.
    """
    layer: Any = self
    key = None
    has_stream = self.has_rng("quantize") or self.has_rng("params")
    if draws(recipe, x, kernel) or (recipe.needs_key and has_stream):
      key = self.make_rng("quantize")
    return {
      "key": key,
      "precision": layer.precision,
      "dtype": result_dtype(
        x, kernel, bias, dtype=layer.dtype, param_dtype=layer.param_dtype
      ),
    }


def kernel_scale_axes(
  recipe: Recipe, ndim: int, n_stack: int, n_out: int
) -> tuple[int, ...]:
  """Returns which axes of a kernel share a scale, counted from the first.

  Args:
    recipe: recipe of the layer.
    ndim: number of axes of the kernel.
    n_stack: number of its leading axes that stack kernels.
    n_out: number of its output axes, the last ones.
  """
  per_output = recipe.weights is not None and recipe.weights.axis is not None
  return tuple(range(n_stack, ndim - n_out if per_output else ndim))


def _check_traces(rules: Rules, path: tuple[str, ...], recipe: Recipe) -> None:
  """Raises a ValueError where ``nn.jit`` would reuse ``recipe`` elsewhere.

  Equal modules share a trace there, whatever their names.
  """
  for place in jitted_paths():
    inside = path[len(place) :]
    with contextlib.suppress(ValueError):  # No rule matches there.
      if recipe_at(rules, "/".join([*"?" * len(place), *inside])) == recipe:
        continue
    raise ValueError(
      f"the rules for the layer {'/'.join(path)!r} depend on the place of"
      f" {'/'.join(place)!r}, but under nn.jit equal modules share one trace."
      f" Take rules that match anywhere, such as {'.*' + '/'.join(inside)!r},"
      " or one recipe for all layers of the module"
    )


def result_dtype(
  x: Any,
  kernel: Any,
  bias: Any,
  *,
  dtype: Any,
  param_dtype: Any,
  preferred: Any = None,
) -> Any:
  """Returns the dtype of a layer's output, like its twin in Flax.

  Args:
    x: input.
    kernel: a frozen one, which has no floats, counts as ``param_dtype``.
    bias: or ``None``.
    dtype: dtype of the layer; ``None`` for the promotion of the operands.
    param_dtype: dtype of the layer's parameters.
    preferred: ``preferred_element_type`` of an NNX layer: the dtype of the
      product, to which the bias is added.
  """
  dtypes = [x.dtype, kernel.dtype] + ([] if bias is None else [bias.dtype])
  if isinstance(kernel, QTensor) and kernel.latent is None:
    dtypes[1] = param_dtype
  # NumPy arrays: Flax resolves dtypes that JAX has turned off, as float64.
  arrays = [np.zeros((), dtype) for dtype in dtypes]
  dtype = canonicalize_dtype(*arrays, dtype=dtype)
  if preferred is None:
    return dtype
  return jnp.promote_types(preferred, preferred if bias is None else dtype)


class BitDense(QuantizedLayer, nn.Dense):
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
    dot_general: product to use, for "float" only.
    dot_general_cls: class of the product to use, for "float" only.
    recipe: a ``Recipe``, the name of one in ``RECIPES``, or (pattern, recipe)
      rules, of which the first that matches the path of the layer applies.

  Raises:
    TypeError: for features that are no integer.
    ValueError: for less than one, an unknown recipe, or an option that a
      quantized product cannot honour.

  Example:
    >>> import jax
    >>> from bitnet_jax import BitDense
    >>> x = jax.numpy.ones((2, 8))
    >>> layer = BitDense(4, recipe="b158_median")
    >>> variables = layer.init(jax.random.key(0), x)
    >>> layer.apply(variables, x).shape
    (2, 4)
  """

  # As in Flax, whose type annotation cannot be checked.
  promote_dtype: Any = linear.promote_dtype

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
      inputs: input of the layer, or its codes from ``ops.quantize_input``.
      strength: fraction of quantization, in [0, 1], to phase it in; ``None``
        quantizes fully and multiplies integers.
    """
    recipe = self.find_recipe()
    if replaces_product(self, nn.Dense, recipe):
      return checkpoint_name(super().__call__(inputs), PRODUCT)
    kernel = self.find_kernel((inputs.shape[-1], self.features))
    bias = self.find_bias((self.features,))
    options = self.product_options(recipe, inputs, kernel, bias)
    x, w = quantize_operands(
      inputs, kernel, recipe, strength=strength, key=options["key"]
    )
    return multiply(x, w, recipe, bias=bias, **options)
