"""Quantized products, norms and packing, as functions of arrays."""

from bitnet_jax.ops.norm import normalize as normalize
from bitnet_jax.ops.operands import quantize_input as quantize_input
from bitnet_jax.ops.packing import pack as pack
from bitnet_jax.ops.packing import unpack as unpack
from bitnet_jax.ops.products import bit_conv as bit_conv
from bitnet_jax.ops.products import bit_dot as bit_dot

__all__ = [
  "bit_conv",
  "bit_dot",
  "normalize",
  "pack",
  "quantize_input",
  "unpack",
]
