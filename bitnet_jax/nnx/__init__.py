"""NNX twins of the layers, with the arguments of their ``nnx`` namesakes."""

from bitnet_jax.nnx.layers import BitConv as BitConv
from bitnet_jax.nnx.layers import BitLinear as BitLinear
from bitnet_jax.nnx.layers import BitLinearGeneral as BitLinearGeneral
