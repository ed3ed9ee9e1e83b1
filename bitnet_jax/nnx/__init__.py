"""NNX layers: twins of ``nnx.Linear``, ``nnx.LinearGeneral``, ``nnx.Conv``."""

from bitnet_jax.nnx.layers import BitConv as BitConv
from bitnet_jax.nnx.layers import BitLinear as BitLinear
from bitnet_jax.nnx.layers import BitLinearGeneral as BitLinearGeneral
