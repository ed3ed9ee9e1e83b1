"""Quantizes existing Linen and NNX models without changing their source."""

from bitnet_jax.convert.bitlinearize import bitlinearize as bitlinearize
from bitnet_jax.convert.report import Report as Report

__all__ = [
  "Report",
  "bitlinearize",
]
