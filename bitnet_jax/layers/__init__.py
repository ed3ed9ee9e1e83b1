"""Quantized Linen layers: latent weights and the products of ``ops``."""

from bitnet_jax.layers.conv import BitConv as BitConv
from bitnet_jax.layers.dense import BitDense as BitDense
from bitnet_jax.layers.dense_general import BitDenseGeneral as BitDenseGeneral
from bitnet_jax.layers.introspection import bit_layers as bit_layers

__all__ = ["BitConv", "BitDense", "BitDenseGeneral", "bit_layers"]
