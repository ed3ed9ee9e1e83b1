"""NNX layers: twins of ``nnx.Linear``, ``nnx.LinearGeneral``, ``nnx.Conv``."""

from bitnet_jax.nnx.introspection import bit_layers as bit_layers
from bitnet_jax.nnx.layers import BitConv as BitConv
from bitnet_jax.nnx.layers import BitLinear as BitLinear
from bitnet_jax.nnx.layers import BitLinearGeneral as BitLinearGeneral
from bitnet_jax.nnx.variables import linen_variables as linen_variables
from bitnet_jax.nnx.variables import (
  with_linen_variables as with_linen_variables,
)

__all__ = [
  "BitConv",
  "BitLinear",
  "BitLinearGeneral",
  "bit_layers",
  "linen_variables",
  "with_linen_variables",
]
