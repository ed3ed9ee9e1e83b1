"""Sharding of operands: manual axes of shard_map, explicit mesh axes."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType
from jaxtyping import Array


def varying_alike(*trees: Any) -> Any:
  """Casts arrays to vary over all manual axes that any of them varies over.

  ``jax.shard_map`` checks that a custom gradient varies like its operand. So
  the cast comes before the custom rule, and its transpose sums the gradient of
  an operand over the axes along which the operand was replicated.

  Args:
    *trees: pytrees of arrays.

  Returns:
    The trees; unchanged outside of ``jax.shard_map``.
  """
  axes = {axis for a in jax.tree.leaves(trees) for axis in _varying_axes(a)}

  def cast(array):
    missing = tuple(sorted(axes - _varying_axes(array), key=str))
    return jax.lax.pcast(array, missing, to="varying") if missing else array

  return jax.tree.map(cast, trees)


def _varying_axes(array):
  kind = jax.typeof(array)
  if hasattr(kind, "manual_axis_type"):
    return kind.manual_axis_type.varying
  return kind.vma  # Where it stands in older versions of JAX.


def call_sharded_like(
  result: Array, function: Callable[..., Array], *operands: Any
) -> Array:
  """Calls a function and shards its result like an existing array.

  On meshes with axes of type ``Explicit`` a product that contracts a sharded
  axis must say how its result is sharded. Elsewhere the compiler decides.

  Args:
    result: an array of the shape of the result.
    function: function of operands.
    *operands: pytrees of arrays.
  """
  sharding = jax.typeof(result).sharding
  if AxisType.Explicit not in sharding.mesh.axis_types:
    return function(*operands)
  in_auto_mode: Any = jax.sharding.auto_axes(function, out_sharding=sharding)
  return in_auto_mode(*operands)


def shape_like(array: Array, dtype: Any) -> jax.ShapeDtypeStruct:
  """Returns shape and sharding of an array, with another dtype."""
  return jax.eval_shape(lambda a: a.astype(dtype), array)
