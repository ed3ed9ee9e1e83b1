"""The model of a run on the devices of this machine, without its data."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.layers.introspection import BitLayer
from bitnet_jax.train.config.settings import MeshOptions, Settings
from bitnet_jax.train.devices.mesh import axis_names, make_mesh
from bitnet_jax.train.folder.checkpoint import Checkpoints
from bitnet_jax.train.state import AxisRules
from bitnet_jax.train.tasks.base import Supervised

INIT, TRAIN, EVALUATE = range(3)  # Folded into the seed's key, by purpose.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSetup:
  """A model with its loss, and the devices that it is computed on.

  Attributes:
    settings: the checked config.
    task: the model, its loss and its metrics.
    layers: the quantizable layers of the model.
    mesh: the devices.
    rules: pairs of logical axis and mesh axis.
  """

  settings: Settings
  task: Supervised
  layers: Sequence[BitLayer]
  mesh: Mesh
  rules: AxisRules

  @property
  def model(self) -> nn.Module:
    """The model."""
    return self.task.model

  def key(self, purpose: int) -> jax.Array:
    """Returns the random key of one purpose."""
    return jax.random.fold_in(jax.random.key(self.settings.seed), purpose)

  def evaluation_key(self) -> jax.Array:
    """Returns the key of stochastic rounding in evaluation."""
    return self.key(EVALUATE)

  @contextlib.contextmanager
  def activate(self) -> Iterator[None]:
    """Makes mesh and rules current for a block of code."""
    with jax.set_mesh(self.mesh), nn.logical_axis_rules(self.rules):
      yield


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedModel(ModelSetup):
  """The model of a run at one of its checkpoints.

  Attributes:
    variables: parameters and mutable collections, by collection.
    tokenizer: the vocabulary; ``None`` where the data are not text.
    step: number of the checkpoint.
  """

  variables: dict[str, Any]
  tokenizer: Tokenizer | None
  step: int


def checkpoints_of(settings: Settings, folder: pathlib.Path) -> Checkpoints:
  """Returns the checkpoints of a workdir; the best one is fully quantized."""
  return Checkpoints.of_run(
    folder,
    settings.checkpoint,
    counted_from=settings.quant.phase_in.active_from,
  )


def mesh_of_this_machine(options: MeshOptions) -> Mesh:
  """Returns a mesh of the devices of this machine, however many there are.

  It has the sizes of the config if they fit the devices. Otherwise the
  parameters are split over all devices if the config splits them, and copied to
  all devices if not.
  """
  try:
    return make_mesh(**dataclasses.asdict(options))
  except ValueError:
    is_split = (options.fsdp, options.tensor) != (1, 1)
    data, fsdp = (1, -1) if is_split else (-1, 1)
    return make_mesh(data=data, fsdp=fsdp, tensor=1)


def abstract_variables(setup: ModelSetup) -> Any:
  """Returns shapes, dtypes and shardings of the variables of a model.

  An axis that the devices do not divide evenly is not split.
  """
  boxed = jax.eval_shape(setup.task.init, jax.random.key(0))
  specs = nn.get_partition_spec(boxed)
  shardings = nn.logical_to_mesh_sharding(specs, setup.mesh, list(setup.rules))
  # Not by nn.unbox, which asks for an even split.
  return jax.tree.map(
    lambda leaf, sharding: _abstract(getattr(leaf, "value", leaf), sharding),
    dict(boxed),
    dict(shardings),
    is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata),
  )


def _abstract(leaf, sharding) -> jax.ShapeDtypeStruct:
  """Returns an array of that shape, split along the axes that are divisible."""
  sizes = sharding.mesh.shape
  spec = [
    axes
    if size % math.prod(sizes[name] for name in axis_names(axes)) == 0
    else None
    for size, axes in zip(leaf.shape, sharding.spec, strict=False)
  ]
  fitting = NamedSharding(sharding.mesh, PartitionSpec(*spec))
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=fitting)
