"""The mesh of devices, and where batches go on it."""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")


def make_mesh(*, data: int, fsdp: int, tensor: int) -> Mesh:
  """Builds the mesh.

  Args:
    data: number of replicas of the parameters; -1 takes all devices left.
    fsdp: number of shards of parameters and batch; -1 likewise.
    tensor: number of shards of the features; -1 likewise.

  Returns:
    A mesh with the axes "data", "fsdp" and "tensor". With no -1 it may use
    fewer devices than there are, the first ones.

  Raises:
    ValueError: for sizes that are not positive, more than one -1, or a product
      that does not fit the number of devices.
  """
  sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
  available = len(jax.devices())
  open_axes = [name for name, size in sizes.items() if size == -1]
  bad = {n: s for n, s in sizes.items() if s < 1 and s != -1}
  if bad or len(open_axes) > 1:
    raise ValueError(
      f"mesh is {sizes}; sizes must be at least 1, and -1 for at most one axis"
    )
  taken = math.prod(size for size in sizes.values() if size != -1)
  if taken > available or (open_axes and available % taken):
    fitting = [n for n in range(1, available + 1) if available % n == 0]
    raise ValueError(
      f"mesh is {sizes}, which does not fit {available} devices; the product of"
      f" the sizes must not exceed them, and beside a -1 be one of {fitting}"
    )
  if open_axes:
    sizes[open_axes[0]] = available // taken
  n = math.prod(sizes.values())
  # Linen's logical constraints need Auto axes.
  return jax.make_mesh(
    tuple(sizes.values()),
    tuple(sizes),
    axis_types=(AxisType.Auto,) * len(sizes),
    devices=jax.devices()[:n],
  )


def batch_shards(mesh: Mesh) -> int:
  """Returns into how many parts a batch is split."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def place_batch(
  batch: Mapping[str, np.ndarray], mesh: Mesh, *, stacked: bool = False
) -> dict[str, jax.Array]:
  """Puts this process's part of a batch on its devices, split by example.

  With ``stacked`` there are several batches, along a leading axis.
  """
  leading = (None,) if stacked else ()
  sharding = NamedSharding(mesh, PartitionSpec(*leading, BATCH_AXES))
  return {
    name: jax.make_array_from_process_local_data(sharding, array)
    for name, array in batch.items()
  }
