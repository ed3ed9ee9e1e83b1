"""Quantizes existing models, without a change to their source."""

from bitnet_jax.convert.bitlinearize import bitlinearize as bitlinearize
from bitnet_jax.convert.report import Report as Report
