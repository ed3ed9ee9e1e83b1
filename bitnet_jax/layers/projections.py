"""What the layers of a transformer share: projections and their input."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, ArrayLike, Float

from bitnet_jax.layers.dense import BitDense
from bitnet_jax.ops import quantize_input
from bitnet_jax.quantizers.recipe import Rules, recipe_at
from bitnet_jax.types import QTensor

Axes = tuple[str | None, ...]


def share_input(
  module: nn.Module,
  x: Float[Array, "*batch d"],
  names: tuple[str, ...],
  rules: Rules,
  strength: ArrayLike | None,
) -> Float[Array, "*batch d"] | QTensor:
  """Normalizes and quantizes ``x`` once for several layers of ``module``.

  Where their recipes differ, leave inputs in float, or are being phased in,
  each layer gets ``x`` as it is.

  Args:
    module: whose layers they are.
    x: their input.
    names: of the layers.
    rules: recipes by path.
    strength: share of quantization in force.
  """
  recipes = {recipe_at(rules, path_of(module, name)) for name in names}
  recipe = recipes.pop()
  if recipes or recipe.acts is None or strength is not None:
    return x
  key = module.make_rng("quantize") if recipe.acts.needs_key else None
  return quantize_input(x, recipe, key=key)


def path_of(module: nn.Module, name: str) -> str:
  """Returns the slash-joined path of a layer of ``module``, for its recipe."""
  return "/".join((*module.path, name))


def no_partitioning(
  init: nn.initializers.Initializer, axes: Axes
) -> nn.initializers.Initializer:
  """Returns the initializer as it is; models pass what names the axes."""
  del axes
  return init


def make_dense(module: Any, name: str, features: int, axes: Axes) -> BitDense:
  """Returns the layer ``name`` of ``module``, configured by its attributes.

  Args:
    module: ``Attention`` or ``FeedForward``.
    name: of the layer.
    features: of its output.
    axes: logical axes of its kernel.
  """
  return BitDense(
    features,
    use_bias=module.use_bias,
    dtype=module.dtype,
    param_dtype=module.param_dtype,
    kernel_init=module.partition(module.kernel_init, axes),
    recipe=recipe_at(module.recipe, path_of(module, name)),
    name=name,
  )
