"""Inference with trained models: freezing, generation and beam search."""

from bitnet_jax.inference.beam import beam_search as beam_search
from bitnet_jax.inference.code_statistics import (
  code_statistics as code_statistics,
)
from bitnet_jax.inference.freeze import freeze as freeze
from bitnet_jax.inference.generate import generate as generate
from bitnet_jax.inference.generate import stream as stream
from bitnet_jax.inference.sampling import Sampling as Sampling
from bitnet_jax.inference.size import measure_size as measure_size
from bitnet_jax.inference.storage import load_frozen as load_frozen
from bitnet_jax.inference.storage import save_frozen as save_frozen

__all__ = [
  "Sampling",
  "beam_search",
  "code_statistics",
  "freeze",
  "generate",
  "load_frozen",
  "measure_size",
  "save_frozen",
  "stream",
]
