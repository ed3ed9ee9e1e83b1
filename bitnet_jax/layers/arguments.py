"""Arguments of layers: sizes, axes, and the options of their namesakes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from bitnet_jax.ops.product import PRODUCT
from bitnet_jax.quantizers.recipe import Recipe

# Options that replace a part of a layer's product, which integers cannot
# honour.
OPTIONS = (
  "promote_dtype",
  "dot_general",
  "dot_general_cls",
  "conv_general_dilated",
  "conv_general_dilated_cls",
)


def as_tuple(value: Any) -> tuple[Any, ...]:
  """Returns an integer, or several, as a tuple."""
  return (value,) if np.ndim(value) == 0 else tuple(value)


def check_sizes(layer: str, *single: str, **sizes: Any) -> None:
  """Raises an error for sizes that are not positive integers.

  Args:
    layer: name of its class.
    *single: names of the arguments that are one integer.
    **sizes: by argument: one, or several; ``None`` where there is a default.

  Raises:
    TypeError: for what is no integer, naming the argument and its value.
    ValueError: for what is less than 1, likewise.
  """
  for name, value in sizes.items():
    if value is None:
      continue
    message = f"{name} of {layer} is {value!r}, which must be "
    if name in single and np.ndim(value):
      raise TypeError(message + "one integer")
    for size in as_tuple(value):
      if isinstance(size, bool) or not hasattr(size, "__index__"):
        raise TypeError(
          message + f"an integer or integers, not {type(size).__name__}"
        )
      if size < 1:
        raise ValueError(message + "at least 1")


def own_options(layer: Any, defaults: Mapping[str, Any]) -> list[str]:
  """Returns the names of ``OPTIONS`` whose values are not the defaults.

  Args:
    layer: any layer with the arguments of a namesake, as attributes.
    defaults: of the namesake.
  """
  return [
    name
    for name in OPTIONS
    if name in defaults and getattr(layer, name) is not defaults[name]
  ]


def check_options(layer: Any, options: list[str]) -> None:
  """Raises a ValueError for options that a quantized product cannot honour."""
  if options:
    raise ValueError(
      f"{type(layer).__name__} does not support {options[0]} with a recipe that"
      " quantizes; leave it at its default, or give the recipe 'float'"
    )


def defaults_of(namesake: type[nn.Module]) -> dict[str, Any]:
  """Returns the defaults of a layer's arguments."""
  return {f.name: f.default for f in dataclasses.fields(namesake)}


def run_namesake(
  layer: Any, namesake: type[nn.Module], recipe: Recipe, inputs: Any
) -> jax.Array:
  """Runs a layer in float with options of its own.

  Raises:
    ValueError: if the recipe quantizes.
  """
  defaults = defaults_of(namesake)
  if not recipe.is_float:
    check_options(layer, own_options(layer, defaults))
  given = {
    name: getattr(layer, name)
    for name in defaults
    if name not in ("parent", "name")
  }
  y = namesake(**given, parent=layer.scope)(inputs)
  return checkpoint_name(y, PRODUCT)


def contracted_axes(axis: Any, *, ndim: int, n_batch: int) -> tuple[int, ...]:
  """Returns the axes of an input that are contracted, in order.

  Args:
    axis: an axis, or axes, from either end.
    ndim: number of axes of the input.
    n_batch: how many leading ones have a kernel for each index.

  Raises:
    ValueError: for axes that the input lacks, or that are named twice.
  """
  axes = as_tuple(axis)
  found = tuple(sorted(a % ndim for a in axes)) if ndim else ()
  inside = all(-ndim <= a < ndim for a in axes)
  if not inside or len({*range(n_batch), *found}) != n_batch + len(axes):
    raise ValueError(
      f"axis is {axis}; of an input with {ndim} axes, of which the first"
      f" {n_batch} are batch axes, it must name different other ones"
    )
  return found
