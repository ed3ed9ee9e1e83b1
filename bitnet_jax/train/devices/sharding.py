"""The mesh of devices, and how batches and weights go over it."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import numpy as np
from flax.core import meta
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bitnet_jax.layers.introspection import BitLayer, quantize_kernels
from bitnet_jax.ops.packing import pack_kernel
from bitnet_jax.quantizers.quantizer import TERNARY_RANGE
from bitnet_jax.types import Packed, QTensor

BATCH_AXES = ("data", "fsdp")
# The axis over which parameters are split, to be gathered for each product.
GATHERED_AXIS = "fsdp"


def make_mesh(
  *,
  data: int,
  fsdp: int,
  tensor: int,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Builds the mesh.

  Where there are several slices of TPUs (or hosts of GPUs), slow links are
  crossed along the axis "data" only, which is a multiple of their number.

  Args:
    data: number of replicas of the parameters; -1 takes all devices left.
    fsdp: number of shards of parameters and batch; -1 likewise.
    tensor: number of shards of the features; -1 likewise.
    devices: to take them from; by default all there are.

  Returns:
    A mesh with the axes "data", "fsdp" and "tensor". With no -1 it may use
    fewer devices than there are, the first ones.

  Raises:
    ValueError: for sizes that are not positive, more than one -1, or a product
      that does not fit the number of devices, or slices that "data" does not.
  """
  sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
  devices = jax.devices() if devices is None else list(devices)
  available = len(devices)
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
  devices = devices[: math.prod(sizes.values())]
  # Linen's logical constraints need Auto axes.
  types = (AxisType.Auto,) * len(sizes)
  slices = len({getattr(device, "slice_index", 0) for device in devices})
  if slices > 1:
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
  return jax.make_mesh(
    tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices
  )


def batch_shards(mesh: Mesh) -> int:
  """Returns into how many parts a batch is split."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_part(mesh: Mesh) -> tuple[int, int]:
  """Returns which part of a batch this process has, and how many there are.

  Processes whose devices differ only along the axis "tensor" have the same.

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
  mesh: Mesh, *, stacked: bool = False, whole: bool = False
) -> NamedSharding:
  """Returns how ``place_batch`` splits a batch."""
  leading = (None,) * (stacked + whole)
  return NamedSharding(mesh, PartitionSpec(*leading, BATCH_AXES))


def place_batch(
  batch: Mapping[str, np.ndarray],
  mesh: Mesh,
  *,
  stacked: bool = False,
  whole: bool = False,
) -> dict[str, jax.Array]:
  """Puts a batch on the devices, split by example.

  Args:
    batch: this process's part of it.
    mesh: the devices.
    stacked: whether there are several batches, along a leading axis.
    whole: whether the batch is one example, which every process has, and is
      split along its second axis.
  """
  sharding = batch_sharding(mesh, stacked=stacked, whole=whole)
  if whole:
    return {name: _place(array, sharding) for name, array in batch.items()}
  # Of several processes this is what the loop's transfer guard is to allow.
  with jax.transfer_guard_host_to_device("allow"):
    return {
      name: jax.make_array_from_process_local_data(sharding, array)
      for name, array in batch.items()
    }


def replicate(value: Any, mesh: Mesh) -> jax.Array:
  """Puts a value that all processes have on every device."""
  return _place(np.asarray(value), NamedSharding(mesh, PartitionSpec()))


def _place(array, sharding):
  with jax.transfer_guard_host_to_device("allow"):
    return jax.make_array_from_callback(
      array.shape, sharding, lambda index: array[index]
    )


def shared_codes(
  layers: Sequence[BitLayer],
  params: Any,
  shardings: Any = None,
  *,
  training: bool = True,
) -> dict[str, QTensor]:
  """Quantizes the kernels of a model once for all products and devices.

  Args:
    layers: of the model.
    params: its parameters.
    shardings: tree of their shardings; ``None`` on a single device.
    training: see ``quantize_kernels``.

  Returns:
    What ``quantize_kernels`` returns, with the codes of kernels that are split
    over the axis "fsdp" gathered, see ``gather_codes``.
  """
  codes = quantize_kernels(layers, params, training=training)
  if shardings is None:
    return codes
  of_path = {layer.path: layer for layer in layers}
  return {
    path: gather_codes(of_path[path], q, of_path[path].kernel(shardings))
    for path, q in codes.items()
  }


def gathered_at_use(params: Any, shardings: Any) -> Any:
  """Returns parameters that are put together where a layer takes them.

  Else the compiler decides how a product goes over the devices, and where all
  three axes of the mesh are in use XLA's partitioner has been seen to compute
  wrong gradients of a chain of products, on every backend.

  Args:
    params: of a model, codes among them; those are left as they are.
    shardings: tree of the shardings of the parameters; ``None`` on a single
      device.

  Returns:
    The same, with arrays that are split over the axis "fsdp" in boxes which
    Flax modules open.
  """
  if shardings is None:
    return params

  def box(leaf, sharding):
    split = any(GATHERED_AXIS in axis_names(axes) for axes in sharding.spec)
    if isinstance(leaf, QTensor) or not split:
      return leaf
    return _Split(leaf, sharding)

  return jax.tree.map(
    box, params, shardings, is_leaf=lambda leaf: isinstance(leaf, QTensor)
  )


class _Split(flax.struct.PyTreeNode, meta.AxisMetadata):
  """A parameter that is split over the axis "fsdp"."""

  value: Any
  sharding: NamedSharding = flax.struct.field(pytree_node=False)

  def unbox(self) -> Any:
    return _gather(self.sharding, self.value)

  def replace_boxed(self, val: Any) -> "_Split":
    return self.replace(value=val)

  def add_axis(self, index: int, params: Any) -> "_Split":
    del params
    spec = [*self.sharding.spec]
    spec.insert(index, None)
    return self._with_spec(spec)

  def remove_axis(self, index: int, params: Any) -> "_Split":
    del params
    spec = [*self.sharding.spec]
    return self._with_spec(spec[:index] + spec[index + 1 :])

  def _with_spec(self, spec):
    sharding = NamedSharding(self.sharding.mesh, PartitionSpec(*spec))
    return self.replace(sharding=sharding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gather(sharding, array):
  """Puts an array together; its gradient is summed into the parts."""
  return jax.lax.with_sharding_constraint(array, _together(sharding))


def _gather_forward(sharding, array):
  return _gather(sharding, array), None


def _gather_backward(sharding, residuals, gradient):
  del residuals
  return (jax.lax.with_sharding_constraint(gradient, sharding),)


_gather.defvjp(_gather_forward, _gather_backward)


def _together(sharding):
  """Returns the sharding without the axis "fsdp"."""
  kept = [
    tuple(name for name in axis_names(axes) if name != GATHERED_AXIS)
    for axes in sharding.spec
  ]
  return NamedSharding(sharding.mesh, PartitionSpec(*kept))


def gather_codes(
  layer: BitLayer, q: QTensor, sharding: NamedSharding
) -> QTensor:
  """Puts the codes of a kernel together that is split over the axis "fsdp".

  Ternary codes travel packed, four to a byte: each device packs its own part.
  They stay packed in memory, until a product takes them.

  Args:
    layer: whose kernel it is.
    q: codes, split as the kernel is, and scale.
    sharding: of the kernel.

  Returns:
    The same, split over the axis "tensor" at most.
  """
  split = [axis_names(axes) for axes in sharding.spec]
  split += [()] * (q.ndim - len(split))
  if not any(GATHERED_AXIS in axes for axes in split):
    return q
  together = _together(sharding)
  assert layer.recipe.weights is not None
  if layer.recipe.weights.range != TERNARY_RANGE:
    # A barrier, else the compiler gathers what the codes are made of.
    codes = jax.lax.optimization_barrier(q.codes)
    codes = jax.lax.with_sharding_constraint(codes, together)
    return dataclasses.replace(q, qvalue=codes)
  parts = [math.prod(sharding.mesh.shape[a] for a in axes) for axes in split]
  stack = [axis % q.ndim for axis in layer.stack_axes]
  packed = pack_kernel(q.codes, parts=parts, stack=stack)
  assert isinstance(packed, Packed)  # Models here stack along the first axis.
  data = jax.lax.with_sharding_constraint(packed.data, together)
  return dataclasses.replace(q, qvalue=dataclasses.replace(packed, data=data))


def axis_names(axes: str | Sequence[str] | None) -> tuple[str, ...]:
  """Returns the mesh axes of one entry of a ``PartitionSpec``."""
  if axes is None:
    return ()
  return (axes,) if isinstance(axes, str) else tuple(axes)
