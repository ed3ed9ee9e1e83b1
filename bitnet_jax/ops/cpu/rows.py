"""Norms and rounding of rows on CPUs, by kernels that read a row once."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from bitnet_jax.ops.cpu import kernels
from bitnet_jax.ops.xla import NORM_EPS
from bitnet_jax.quantizers.quantizer import Quantizer


def quantizes(x: Array, *, norm: str | None, quantizer: Quantizer) -> bool:
  """Whether the kernel rounds as the quantizer does.

  However few values there are, so that a row has its codes in any batch.
  """
  del norm
  return (
    x.dtype == jnp.float32
    and quantizer.measure == "absmax"
    and quantizer.rounding == "nearest"
    and quantizer.axis is not None
  )


def quantize(
  x: Array, *, norm: str | None, quantizer: Quantizer
) -> tuple[Array, Array, Array, Array]:
  """Returns codes and scales of normalized rows, and the means and factors."""
  return kernels.quantize_rows(
    x, norm=norm, norm_eps=NORM_EPS, codes=quantizer.range, eps=quantizer.eps
  )


def suits(x: Array, *operands: Any, axes: tuple[int, ...], norm: str) -> bool:
  """Whether rows of float32 were normalized."""
  del operands, norm
  return axes in ((-1,), (x.ndim - 1,)) and x.dtype == jnp.float32


def gradient(
  x: Array,
  mean: Array | None,
  factor: Array,
  g: Array,
  *,
  norm: str,
  axes: tuple[int, ...],
) -> Array:
  """Returns the gradient by rows that a norm was applied to."""
  del axes
  mean = jnp.zeros_like(factor) if mean is None else mean
  return kernels.norm_gradients(x, mean, factor, g, norm=norm)
