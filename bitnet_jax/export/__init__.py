"""Trained models in other people's formats, checked after writing."""

from bitnet_jax.export.hf import write_hf as write_hf
from bitnet_jax.export.hf_import import read_hf as read_hf
