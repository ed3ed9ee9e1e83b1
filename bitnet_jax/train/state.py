"""The training state, which is the content of a checkpoint."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bitnet_jax.train.devices.mesh import axis_names
from bitnet_jax.train.optimizer.averaging import find_average

AxisRules = tuple[tuple[str, Any], ...]


@flax.struct.dataclass
class TrainState:
  """The training state; all leaves are arrays.

  Attributes:
    step: number of updates, int32 scalar.
    params: latent weights and all other trained parameters.
    opt_state: state of the optimizer, sharded like the parameters.
    variables: mutable collections such as batch statistics; usually empty.
  """

  step: jax.Array
  params: Any
  opt_state: optax.OptState
  variables: Any

  @property
  def evaluated_params(self) -> Any:
    """What is evaluated: the averages of ``optim.ema``, or ``params``."""
    average = find_average(self.opt_state)
    if average is None:
      return self.params
    return jax.tree.map(lambda a, p: a.astype(p.dtype), average, self.params)


class Init(NamedTuple):
  """A function that creates a sharded state, and what its trace showed.

  Attributes:
    create: maps a random key to the state.
    shapes: shapes and dtypes of the state.
    shardings: shardings of the state.
    jaxpr: what ``create`` computes.
  """

  create: Callable[[jax.Array], TrainState]
  shapes: TrainState
  shardings: TrainState
  jaxpr: Any


def make_init(
  init: Callable[[jax.Array], Mapping[str, Any]],
  tx: optax.GradientTransformation,
  mesh: Mesh,
  rules: AxisRules,
) -> Init:
  """Returns a function that creates a sharded state.

  No device ever holds all of it.

  Args:
    init: maps a key to the variables of a model, as ``nn.Module.init`` does.
    tx: the optimizer.
    mesh: devices.
    rules: (logical axis, mesh axis) pairs.
  """

  # The model is traced once: for its shapes, operations and the program.
  @functools.partial(jax.jit, inline=True)
  def create(key):
    variables = dict(init(key))
    params = variables.pop("params")
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, tx.init(params), variables)

  # A key on the mesh: programs that are given one do not trace again.
  key = jax.eval_shape(lambda: jax.random.key(0))
  key = key.update(sharding=NamedSharding(mesh, PartitionSpec()))
  jaxpr, shapes = jax.make_jaxpr(create, return_shape=True)(key)
  specs = nn.get_partition_spec(shapes)
  shardings = nn.logical_to_mesh_sharding(specs, mesh, rules)
  _check_division(shapes, shardings)
  create_sharded = jax.jit(create, out_shardings=shardings)
  return Init(
    create=lambda key: nn.unbox(create_sharded(key)),
    shapes=_unboxed(shapes),
    shardings=shardings,
    jaxpr=jaxpr,
  )


def _unboxed(tree: Any) -> Any:
  """Returns shapes without the names of their axes; nn.unbox shards them."""
  return jax.tree.map(
    lambda leaf: getattr(leaf, "value", leaf),
    tree,
    is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata),
  )


def _check_division(state: Any, shardings: Any) -> None:
  """Raises a ValueError for an axis of a parameter that cannot be sharded."""
  flat = jax.tree_util.tree_leaves_with_path(_unboxed(state.params))
  splits = jax.tree.leaves(shardings.params)
  for (path, leaf), sharding in zip(flat, splits, strict=True):
    for axis, names in enumerate(sharding.spec):
      names = axis_names(names)
      parts = math.prod(sharding.mesh.shape[name] for name in names)
      size = leaf.shape[axis]
      if size % parts:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        fitting = [n for n in range(1, size + 1) if size % n == 0 and n <= 64]
        raise ValueError(
          f"the parameter {name} {leaf.shape} has {size} along axis {axis},"
          f" which {' x '.join(f'mesh.{n}' for n in names)} = {parts} does not"
          f" divide; it could be one of {fitting}, the size"
          f" {size // parts * parts} or {-(-size // parts) * parts}, or"
          " sharding_rules could leave the axis unsharded"
        )


def count_params(params: Any) -> int:
  """Returns the number of scalar parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
