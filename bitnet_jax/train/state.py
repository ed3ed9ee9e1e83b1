"""The state of a run: exactly what a checkpoint holds."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

AxisRules = tuple[tuple[str, Any], ...]


@flax.struct.dataclass
class TrainState:
  """Arrays only.

  Attributes:
    step: number of updates made, int32 scalar.
    params: latent weights and all other trained parameters.
    opt_state: state of the optimizer, sharded like the parameters.
    variables: mutable collections such as batch statistics; usually empty.
  """

  step: jax.Array
  params: Any
  opt_state: optax.OptState
  variables: Any


def init_state(
  init: Callable[[jax.Array], Mapping[str, Any]],
  tx: optax.GradientTransformation,
  key: jax.Array,
  mesh: Mesh,
  rules: AxisRules,
) -> tuple[TrainState, Any]:
  """Creates the state straight into its shards; no device sees it whole.

  Args:
    init: maps a key to the variables of a model, as ``nn.Module.init`` does.
    tx: the optimizer.
    key: random key.
    mesh: devices.
    rules: (logical axis, mesh axis) pairs.

  Returns:
    The state, and its shardings in a tree of the same structure.
  """

  def create(key):
    variables = dict(init(key))
    params = variables.pop("params")
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, tx.init(params), variables)

  specs = nn.get_partition_spec(jax.eval_shape(create, key))
  shardings = nn.logical_to_mesh_sharding(specs, mesh, rules)
  state = jax.jit(create, out_shardings=shardings)(key)
  return nn.unbox(state), shardings


def count_params(params: Any) -> int:
  """Returns the number of trained scalars."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
