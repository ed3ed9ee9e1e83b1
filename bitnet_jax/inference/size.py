"""Size of a frozen model in memory and on disk."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitnet_jax.inference.tensors import Kernel, check_frozen, flat
from bitnet_jax.types import Packed, QTensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelSize:
  """Size of the codes of one kernel.

  Attributes:
    weights: number of codes.
    bits: per code, on disk.
    entropy: bits per code under an ideal entropy code for this kernel.
  """

  weights: int
  bits: float
  entropy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """Bytes of a frozen model by part.

  Attributes:
    kernels: by path.
    codes: bytes of all codes on disk.
    scales: bytes of their scales.
    floats: bytes of all parameters that stay in float.
    memory: bytes in memory, where ternary codes take 2 bits.
    parameters: number of parameters, without scales.
  """

  kernels: Mapping[str, KernelSize]
  codes: int
  scales: int
  floats: int
  memory: int
  parameters: int

  @property
  def disk(self) -> int:
    """Bytes on disk, without names and shapes."""
    return self.codes + self.scales + self.floats

  def table(self) -> str:
    """Returns a summary as Markdown."""
    weights = sum(k.weights for k in self.kernels.values())
    bits = sum(k.weights * k.bits for k in self.kernels.values())
    entropy = sum(k.weights * k.entropy for k in self.kernels.values())
    rows = [
      "| part | parameters | bytes | bits a parameter |",
      "|---|---:|---:|---:|",
      f"| codes | {weights:,} | {self.codes:,} | {bits / weights:.3f} |",
      f"| their entropy | | {entropy / 8:,.0f} | {entropy / weights:.3f} |",
      f"| scales | | {self.scales:,} | |",
      f"| in float | {self.parameters - weights:,} | {self.floats:,} | |",
    ]
    for name, size in (
      ("all, on disk", self.disk),
      ("all, in memory", self.memory),
      ("all, in bfloat16", 2 * self.parameters),
      ("all, in float32", 4 * self.parameters),
    ):
      bits = 8 * size / self.parameters
      rows.append(f"| {name} | {self.parameters:,} | {size:,} | {bits:.3f} |")
    return "\n".join(rows)


def stored_bytes(variables: Mapping[str, Any]) -> int:
  """Returns the bytes on disk of variables, which may be shapes and dtypes.

  Frozen kernels take what a file takes, without names and shapes.
  """
  total = 0
  for leaf in flat(variables).values():
    if isinstance(leaf, QTensor):
      total += math.prod(Kernel.of(leaf).stored[0])
      leaf = leaf.scale
    total += math.prod(leaf.shape) * leaf.dtype.itemsize
  return total


def measure_size(variables: Any) -> Size:
  """Returns the size of frozen variables.

  Args:
    variables: of a Linen model, or an NNX model.

  Raises:
    ValueError: if nothing is frozen.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> from bitnet_jax import BitDense
    >>> from bitnet_jax.inference import freeze, measure_size
    >>> net, x = nn.Sequential([BitDense(8)]), jax.numpy.ones((1, 4))
    >>> frozen = freeze(net.init(jax.random.key(0), x), net, x)
    >>> size = measure_size(frozen)  # print(size) shows a table.
    >>> size.parameters, size.kernels["params/layers_0/kernel"].weights
    (40, 32)
  """
  leaves, kernels = flat(variables), {}
  codes, floats, scales, memory = 0, 0, 0, 0
  for name, leaf in leaves.items():
    if not isinstance(leaf, QTensor):
      floats += leaf.size * leaf.dtype.itemsize
      continue
    shape, _ = Kernel.of(leaf).stored  # Of bytes, in either layout.
    weights, stored = math.prod(leaf.shape), math.prod(shape)
    kernels[name] = KernelSize(
      weights=weights,
      bits=8 * stored / weights,
      entropy=_entropy(leaf.codes),
    )
    codes += stored
    scales += leaf.scale.size * leaf.scale.dtype.itemsize
    held = leaf.qvalue.data if isinstance(leaf.qvalue, Packed) else leaf.qvalue
    memory += held.size
  check_frozen(kernels)
  return Size(
    kernels=kernels,
    codes=codes,
    scales=scales,
    floats=floats,
    memory=memory + scales + floats,
    parameters=sum(math.prod(leaf.shape) for leaf in leaves.values()),
  )


def _entropy(codes) -> float:
  """Returns the entropy of codes, in bits."""
  _, counts = np.unique(np.asarray(codes), return_counts=True)
  fractions = counts / counts.sum()
  return float(-(fractions * np.log2(fractions)).sum())
