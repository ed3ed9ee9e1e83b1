"""Exponential moving averages of the parameters, kept beside the optimizer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AveragedParams(NamedTuple):
  """The state of ``average_params``.

  Attributes:
    count: number of updates in the average, int32 scalar.
    average: the averages, float32, in the tree of the parameters; zeros before
      the first update.
  """

  count: jax.Array
  average: Any


def average_params(decay: float) -> optax.GradientTransformation:
  """Returns a transformation that averages parameters and changes no update.

  After n updates, the parameters after update i have the weight
  ``decay**(n - i)``, divided by the sum of all weights, so that neither the
  initial parameters nor zeros are part of the average.

  Args:
    decay: in [0, 1); 0 gives the last parameters.
  """

  def init(params):
    average = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
    return AveragedParams(jnp.zeros((), jnp.int32), average)

  def update(updates, state, params=None):
    if params is None:
      raise ValueError("average_params needs the parameters in each update")
    count = jnp.asarray(optax.safe_increment(state.count))
    new = optax.apply_updates(params, updates)
    weight = (1 - decay) / (1 - decay ** count.astype(jnp.float32))
    average = jax.tree.map(
      lambda a, p: a + weight * (p.astype(jnp.float32) - a), state.average, new
    )
    return updates, AveragedParams(count, average)

  return optax.GradientTransformation(init, update)


def find_average(opt_state: Any) -> Any:
  """Returns the averages in an optimizer state; ``None`` if it has none.

  Args:
    opt_state: the state, or the nested dicts and lists that a checkpoint makes
      of it.
  """
  states = jax.tree.leaves(opt_state, is_leaf=_is_averaged)
  found = (_average_of(state) for state in states if _is_averaged(state))
  return next(found, None)


def replace_average(opt_state: Any, average: Any) -> Any:
  """Returns an optimizer state of nested dicts with other averages."""
  return jax.tree.map(
    lambda s: {**s, "average": average} if _is_averaged(s) else s,
    opt_state,
    is_leaf=_is_averaged,
  )


def _is_averaged(state):
  fields = set(AveragedParams._fields)
  is_saved = isinstance(state, Mapping) and state.keys() == fields
  return isinstance(state, AveragedParams) or is_saved


def _average_of(state):
  return state["average"] if isinstance(state, Mapping) else state.average
