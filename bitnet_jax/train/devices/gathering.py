"""All-gathers over the axis "fsdp"; ternary kernels travel as 2-bit codes."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import flax
import jax
from flax.core import meta
from jax.sharding import NamedSharding, PartitionSpec

from bitnet_jax.layers.introspection import BitLayer, quantize_kernels
from bitnet_jax.ops.packing import pack_kernel
from bitnet_jax.quantizers.quantizer import TERNARY_RANGE
from bitnet_jax.train.devices.mesh import axis_names
from bitnet_jax.types import Packed, QTensor

# The axis that shards parameters, which are gathered for each product.
GATHERED_AXIS = "fsdp"


def shared_codes(
  layers: Sequence[BitLayer],
  params: Any,
  shardings: Any = None,
  *,
  training: bool = True,
) -> dict[str, QTensor]:
  """Quantizes the kernels of a model once for all products and devices.

  Args:
    layers: layers of the model.
    params: its parameters.
    shardings: tree of their shardings; ``None`` on a single device.
    training: see ``quantize_kernels``.

  Returns:
    What ``quantize_kernels`` returns, with codes that are sharded over the axis
    "fsdp" gathered; see ``gather_codes``.
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
  """Returns parameters that are gathered where a layer reads them.

  Otherwise the compiler decides how a product is partitioned, and with all
  three axes of the mesh in use XLA's partitioner computed wrong gradients of a
  chain of products, on every backend.

  Args:
    params: parameters of a model; codes among them are left as they are.
    shardings: tree of the shardings of the parameters; ``None`` on a single
      device.

  Returns:
    The same, with arrays that are sharded over the axis "fsdp" in boxes that
    Flax modules unbox.
  """
  if shardings is None:
    return params

  def box(leaf, sharding):
    sharded = any(GATHERED_AXIS in axis_names(axes) for axes in sharding.spec)
    if isinstance(leaf, QTensor) or not sharded:
      return leaf
    return _Sharded(leaf, sharding)

  return jax.tree.map(
    box, params, shardings, is_leaf=lambda leaf: isinstance(leaf, QTensor)
  )


class _Sharded(flax.struct.PyTreeNode, meta.AxisMetadata):
  """A parameter that is sharded over the axis "fsdp"."""

  value: Any
  sharding: NamedSharding = flax.struct.field(pytree_node=False)

  def unbox(self) -> Any:
    return _gather(self.sharding, self.value)

  def replace_boxed(self, val: Any) -> "_Sharded":
    return self.replace(value=val)

  def add_axis(self, index: int, params: Any) -> "_Sharded":
    del params
    spec = [*self.sharding.spec]
    spec.insert(index, None)
    return self._with_spec(spec)

  def remove_axis(self, index: int, params: Any) -> "_Sharded":
    del params
    spec = [*self.sharding.spec]
    return self._with_spec(spec[:index] + spec[index + 1 :])

  def _with_spec(self, spec):
    sharding = NamedSharding(self.sharding.mesh, PartitionSpec(*spec))
    return self.replace(sharding=sharding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gather(sharding, array):
  """All-gathers an array; its gradient is reduce-scattered."""
  return jax.lax.with_sharding_constraint(array, _gathered(sharding))


def _gather_forward(sharding, array):
  return _gather(sharding, array), None


def _gather_backward(sharding, residuals, gradient):
  del residuals
  return (jax.lax.with_sharding_constraint(gradient, sharding),)


_gather.defvjp(_gather_forward, _gather_backward)


def _gathered(sharding):
  """Returns the sharding without the axis "fsdp"."""
  kept = [
    tuple(name for name in axis_names(axes) if name != GATHERED_AXIS)
    for axes in sharding.spec
  ]
  return NamedSharding(sharding.mesh, PartitionSpec(*kept))


def gather_codes(
  layer: BitLayer, q: QTensor, sharding: NamedSharding
) -> QTensor:
  """Gathers the codes of a kernel that is sharded over the axis "fsdp".

  Each device packs its ternary codes, four to a byte, before they are sent.
  They stay packed in memory until a product reads them.

  Args:
    layer: whose kernel it is.
    q: codes, sharded as the kernel is, and scale.
    sharding: sharding of the kernel.

  Returns:
    The same, sharded over the axis "tensor" at most.
  """
  axes_of = [axis_names(axes) for axes in sharding.spec]
  axes_of += [()] * (q.ndim - len(axes_of))
  if not any(GATHERED_AXIS in axes for axes in axes_of):
    return q
  gathered = _gathered(sharding)
  assert layer.recipe.weights is not None
  if layer.recipe.weights.range != TERNARY_RANGE:
    # Without the barrier the compiler gathers the latent weights instead.
    codes = jax.lax.optimization_barrier(q.codes)
    codes = jax.lax.with_sharding_constraint(codes, gathered)
    return dataclasses.replace(q, qvalue=codes)
  parts = [math.prod(sharding.mesh.shape[a] for a in axes) for axes in axes_of]
  stack = [axis % q.ndim for axis in layer.stack_axes]
  packed = pack_kernel(q.codes, parts=parts, stack=stack)
  assert isinstance(packed, Packed)  # Our models stack along the first axis.
  data = jax.lax.with_sharding_constraint(packed.data, gathered)
  return dataclasses.replace(q, qvalue=dataclasses.replace(packed, data=data))
