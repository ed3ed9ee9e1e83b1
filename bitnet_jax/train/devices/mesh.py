"""The device mesh, and how batches are sharded over it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")


def make_mesh(
  *,
  data: int,
  fsdp: int,
  tensor: int,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Builds the mesh, with the axes "data", "fsdp" and "tensor".

  With several slices of TPUs (or hosts of GPUs), only the axis "data" crosses
  the slow links between them. Without a -1, the mesh may use fewer devices than
  there are: the first ones.

  Args:
    data: number of replicas of the parameters; -1 takes all devices left.
    fsdp: number of shards of parameters and batch; -1 likewise.
    tensor: number of shards of the features; -1 likewise.
    devices: those to use; by default all there are.

  Raises:
    ValueError: for sizes that are not positive, more than one -1, a product
      that does not fit the devices, or a "data" that does not fit the slices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = _fill({"data": data, "fsdp": fsdp, "tensor": tensor}, len(devices))
  devices = devices[: math.prod(sizes.values())]
  # Linen's logical constraints need Auto axes.
  types = (AxisType.Auto,) * len(sizes)
  slices = len({getattr(device, "slice_index", 0) for device in devices})
  if slices == 1:
    return jax.make_mesh(
      tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices
    )
  if sizes["data"] % slices:
    raise ValueError(
      f"mesh is {sizes}, but there are {slices} slices of devices, over which"
      " the axis data is split first; its size must be a multiple of them"
    )
  within = (sizes["data"] // slices, sizes["fsdp"], sizes["tensor"])
  grid = mesh_utils.create_hybrid_device_mesh(
    within, (slices, 1, 1), devices=devices
  )
  return Mesh(grid, tuple(sizes), axis_types=types)


def _fill(sizes: dict[str, int], available: int) -> dict[str, int]:
  """Returns the sizes with -1 replaced; see ``make_mesh`` for the errors."""
  open_axes = [name for name, size in sizes.items() if size == -1]
  bad = any(size < 1 and size != -1 for size in sizes.values())
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
  return sizes | {name: available // taken for name in open_axes}


def batch_shards(mesh: Mesh) -> int:
  """Returns the number of shards of a batch."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_part(mesh: Mesh) -> tuple[int, int]:
  """Returns the index of this process's part of a batch, and the part count.

  Processes whose devices differ only along the axis "tensor" have the same
  part.

  Raises:
    ValueError: for a mesh that gives a process examples that are not
      consecutive.
  """
  grid = mesh.devices.reshape(batch_shards(mesh), -1)
  mine = [
    shard
    for shard, devices in enumerate(grid)
    if any(d.process_index == jax.process_index() for d in devices)
  ]
  count, left = divmod(len(grid), max(len(mine), 1))
  first = mine[0] if mine else 0
  if not mine or left or mine != [*range(first, first + len(mine))]:
    raise ValueError(
      f"mesh is {dict(mesh.shape)}, of whose {len(grid)} parts of a batch"
      f" process {jax.process_index()} would have {mine}; they must follow one"
      " another, as many in each process: give the axes data and fsdp together"
      " a multiple of the number of processes, or a divisor of it"
    )
  return first // len(mine), count


def batch_sharding(
  mesh: Mesh, *, stacked: bool = False, full_graph: bool = False
) -> NamedSharding:
  """Returns the sharding of a batch; see ``place_batch``."""
  leading = (None,) * (stacked + full_graph)
  return NamedSharding(mesh, PartitionSpec(*leading, BATCH_AXES))


def place_batch(
  batch: Mapping[str, np.ndarray],
  mesh: Mesh,
  *,
  stacked: bool = False,
  full_graph: bool = False,
) -> dict[str, jax.Array]:
  """Puts a batch on the devices, sharded by example.

  Args:
    batch: this process's part of it.
    mesh: the devices.
    stacked: whether there are several batches, along a leading axis.
    full_graph: whether the batch is one graph, which every process holds; it is
      sharded along its second axis.
  """
  sharding = batch_sharding(mesh, stacked=stacked, full_graph=full_graph)
  if full_graph:
    return {name: _place(array, sharding) for name, array in batch.items()}
  # The training loop's transfer guard would refuse it with several processes.
  with jax.transfer_guard_host_to_device("allow"):
    return {
      name: jax.make_array_from_process_local_data(sharding, array)
      for name, array in batch.items()
    }


def replicate(value: Any, mesh: Mesh) -> jax.Array:
  """Puts a value that every process has on every device."""
  return _place(np.asarray(value), NamedSharding(mesh, PartitionSpec()))


def _place(array, sharding):
  with jax.transfer_guard_host_to_device("allow"):
    return jax.make_array_from_callback(
      array.shape, sharding, lambda index: array[index]
    )


def axis_names(axes: str | Sequence[str] | None) -> tuple[str, ...]:
  """Returns the mesh axes of one entry of a ``PartitionSpec``."""
  if axes is None:
    return ()
  return (axes,) if isinstance(axes, str) else tuple(axes)
