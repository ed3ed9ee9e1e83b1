"""Checks of a layer's arguments: sizes, axes, and options of the Flax layer."""

import inspect
from typing import Any

import numpy as np

from bitnet_jax.quantizers.recipe import Recipe

# Options of Flax's layers that replace their product.
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
    *single: names of the arguments that take one integer only.
    **sizes: by argument: one integer or several; ``None`` is passed over.

  Raises:
    TypeError: for a value that is no integer, naming argument and value.
    ValueError: for a value below 1, likewise.
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


def changed_options(layer: Any, twin: type) -> list[str]:
  """Returns the names of ``OPTIONS`` that are not at their defaults.

  Args:
    layer: a Linen or NNX layer.
    twin: the Flax class whose constructor has the defaults.
  """
  arguments = inspect.signature(twin.__init__).parameters
  return [
    name
    for name in OPTIONS
    if name in arguments and getattr(layer, name) is not arguments[name].default
  ]


def replaces_product(layer: Any, twin: type, recipe: Recipe) -> bool:
  """Whether an option of a layer replaces its product.

  Raises:
    ValueError: if one does, and the recipe quantizes.
  """
  options = changed_options(layer, twin)
  if options and not recipe.is_float:
    raise ValueError(
      f"{type(layer).__name__} does not support {options[0]} with a recipe that"
      " quantizes; leave it at its default, or give the recipe 'float'"
    )
  return bool(options)


def contracted_axes(axis: Any, *, ndim: int, n_batch: int) -> tuple[int, ...]:
  """Returns the axes of an input that are contracted, in order.

  Args:
    axis: an axis, or axes, from either end.
    ndim: number of axes of the input.
    n_batch: number of leading batch axes, which have a kernel for each index.

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
