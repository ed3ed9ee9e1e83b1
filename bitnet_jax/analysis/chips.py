"""Peak operations and memory of accelerators, by JAX's device kind.

Peaks are for dense products, from the Cloud TPU documentation (system
architecture) and NVIDIA's data sheets (without sparsity).
"""

import dataclasses

GIB = 1024**3


@dataclasses.dataclass(frozen=True)
class Chip:
  """One accelerator.

  Attributes:
    memory: bytes of device memory.
    bfloat16: peak operations per second of bfloat16 products.
    int8: peak operations per second of int8 products.
  """

  memory: int
  bfloat16: float
  int8: float


# By a part of ``jax.Device.device_kind``; the first match wins.
CHIPS = {
  "TPU v5 lite": Chip(16 * GIB, 197e12, 394e12),
  "TPU v5e": Chip(16 * GIB, 197e12, 394e12),
  "TPU v5": Chip(95 * GIB, 459e12, 918e12),
  "TPU v6": Chip(32 * GIB, 918e12, 1836e12),
  "TPU v4": Chip(32 * GIB, 275e12, 275e12),
  "H200": Chip(141 * GIB, 989e12, 1979e12),
  "H100": Chip(80 * GIB, 989e12, 1979e12),
  "A100": Chip(80 * GIB, 312e12, 624e12),
}


def find(kind: str) -> Chip | None:
  """Returns the chip of a device kind, or ``None`` if it is unknown."""
  for name, chip in CHIPS.items():
    if name.lower() in kind.lower():
      return chip
  return None


def utilization(
  flops: dict[str, float], seconds: float, devices: int, chip: Chip
) -> float:
  """Returns the utilization: the fraction of the peak that was reached.

  It is the least time that the products could take, each dtype at its own peak,
  divided by the time that they took.

  Args:
    flops: operations by dtype of the factors, over all devices, see
      ``flops.count``; all except int8 use the bfloat16 peak.
    seconds: measured time.
    devices: number of chips.
    chip: their kind.
  """
  int8 = flops.get("int8", 0.0)
  rest = sum(flops.values()) - int8
  least = int8 / chip.int8 + rest / chip.bfloat16
  return least / devices / seconds
