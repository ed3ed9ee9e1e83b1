"""Export and import: transformers, GGUF, StableHLO. Every export is checked."""

from bitnet_jax.export.gguf import write_gguf as write_gguf
from bitnet_jax.export.hf import write_hf as write_hf
from bitnet_jax.export.hf_import import read_hf as read_hf
from bitnet_jax.export.nnx_decoders import decoder_from_nnx as decoder_from_nnx
from bitnet_jax.export.stablehlo import write_stablehlo as write_stablehlo

__all__ = [
  "decoder_from_nnx",
  "read_hf",
  "write_gguf",
  "write_hf",
  "write_stablehlo",
]
