"""The arrays of NNX models by collection and path, as Linen modules have them.

A layer that stands in several places is listed once, at its first place in the
order of ``nnx.iter_graph``.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from bitnet_jax.types import QTensor

# Variables that are no part of a trained model.
_PASSING = (nnx.RngState, nnx.Cache, nnx.Intermediate, nnx.Perturbation)
_ARRAYS = "arrays"  # Collection of arrays that are in no nnx.Variable.


def linen_variables(model: nnx.Module) -> dict[str, Any]:
  """Returns the variables of an NNX model as nested dicts, as Linen has them.

  A Linen module with the same layers under the same names takes them:
  ``nnx.Param`` is the collection "params", ``nnx.BatchStat`` "batch_stats",
  and other kinds have the names that ``nnx.bridge`` gives them. An entry of an
  ``nnx.List`` is named by its index. Random keys, caches and intermediates are
  left out.

  Args:
    model: any NNX model, trained, frozen, or abstract from ``nnx.eval_shape``.

  Example:
    >>> from flax import nnx
    >>> from bitnet_jax.nnx import BitLinear, linen_variables
    >>> layer = BitLinear(4, 8, rngs=nnx.Rngs(0))
    >>> linen_variables(layer)["params"]["kernel"].shape
    (4, 8)
  """
  flat: dict[str, Any] = {}
  for path, leaf in nnx.to_flat_state(nnx.state(model)):
    name = _name(path, leaf)
    if name is not None:
      flat[name] = _value(leaf)
  return traverse_util.unflatten_dict(flat, sep="/")


def with_linen_variables(
  model: nnx.Module, variables: Mapping[str, Any]
) -> Any:
  """Returns a copy of an NNX model with other values; see ``linen_variables``.

  Args:
    model: any NNX model; also abstract, if ``variables`` has all its arrays.
    variables: new values. What is not among them stays.

  Raises:
    ValueError: for a name that the model does not have.

  Example:
    >>> from flax import nnx
    >>> from bitnet_jax.nnx import BitLinear
    >>> from bitnet_jax.nnx import linen_variables, with_linen_variables
    >>> layer = BitLinear(4, 8, rngs=nnx.Rngs(0))
    >>> trained = linen_variables(BitLinear(4, 8, rngs=nnx.Rngs(1)))
    >>> layer = with_linen_variables(layer, trained)
  """
  new = traverse_util.flatten_dict(dict(variables), sep="/")
  graph, state = nnx.split(model)
  flat, used = {}, set()
  for path, leaf in nnx.to_flat_state(state):
    name = _name(path, leaf)
    used.add(name)
    flat[path] = _copy(leaf, new.get(name, _value(leaf)))
  unknown = sorted(new.keys() - used)
  if unknown:
    raise ValueError(f"{type(model).__name__} does not have: {unknown[:5]}")
  return nnx.merge(graph, nnx.from_flat_state(flat))


def path_name(path: tuple[Any, ...]) -> str:
  """Returns the path of a module or array in an NNX model, with slashes."""
  return "/".join(map(str, path))


def _name(path: tuple[Any, ...], leaf: Any) -> str | None:
  """Returns the name of an array; ``None`` for one that is left out."""
  if isinstance(leaf, _PASSING):
    return None
  if isinstance(leaf, nnx.Param):  # And its subclasses, as of LoRA.
    collection = "params"
  elif isinstance(leaf, nnx.Variable):
    collection = nnx.variablelib.variable_name_from_type(
      type(leaf), allow_register=True
    )
  else:
    collection = _ARRAYS
  dtype = getattr(_value(leaf), "dtype", None)
  if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
    return None
  return f"{collection}/{path_name(path)}"


def _value(leaf: Any) -> Any:
  return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def _copy(leaf: Any, value: Any) -> Any:
  """Returns an array with another value, of the trace that runs."""
  if not isinstance(leaf, nnx.Variable):
    return value
  if isinstance(value, QTensor):
    # Without metadata: an axis of a kernel has no meaning for its codes.
    return type(leaf)(value)
  return leaf.replace(value)
