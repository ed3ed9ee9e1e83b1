"""Scale measures: absmean, absmedian and absmax.

AbsMean is equation 3 of Ma et al., The Era of 1-bit LLMs (arXiv 2402.17764);
AbsMedian is the alternative of Nielsen and Schneider-Kamp, BitNet b1.58
Reloaded (arXiv 2407.09527); AbsMax scales 8-bit activations in both.

Every measure maps a float array and the non-negative axes that share a scale
to a float32 array with these axes kept as size 1. It is NaN where any element
of the group is NaN or infinite, so a bad value never becomes a valid code. The
measure of an empty group is 0 or NaN and is never used.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from bitnet_jax.quantizers import selection

Measure = Callable[
  [Float[Array, "*shape"], tuple[int, ...]], Float[Array, "..."]
]


def _nan_unless_finite(m: Float[Array, "..."]) -> Float[Array, "..."]:
  return jnp.where(jnp.isfinite(m), m, jnp.nan)


def absmean(
  x: Float[Array, "*shape"], axes: tuple[int, ...]
) -> Float[Array, "..."]:
  """Returns the mean of ``|x|`` over ``axes``, summed in float32.

  The result is NaN if the sum of finite values overflows float32.
  """
  m = jnp.mean(jnp.abs(x.astype(jnp.float32)), axes, keepdims=True)
  return _nan_unless_finite(m)


def absmax(
  x: Float[Array, "*shape"], axes: tuple[int, ...]
) -> Float[Array, "..."]:
  """Returns the largest ``|x|`` over ``axes``."""
  magnitudes = jnp.abs(x.astype(jnp.float32))
  # XLA's CPU backend drops NaN from vectorized maxima. A maximum of bit
  # patterns would keep NaN, but takes twice as long.
  magnitudes = jnp.where(jnp.isnan(magnitudes), jnp.inf, magnitudes)
  return _nan_unless_finite(
    jnp.max(magnitudes, axes, keepdims=True, initial=0.0)
  )


def absmedian(
  x: Float[Array, "*shape"], axes: tuple[int, ...]
) -> Float[Array, "..."]:
  """Returns the lower median of ``|x|`` over ``axes``, exactly.

  The lower median is element number ``(n - 1) // 2`` of the sorted values: for
  an even count the lower of the two middle ones, as in PyTorch and unlike
  ``jnp.median``, which averages them. Dtypes other than float32,
  bfloat16 and float16 are cast to float32 first.
  """
  if x.dtype not in selection.DTYPES:
    x = x.astype(jnp.float32)
  n = math.prod(x.shape[i] for i in axes)
  median = selection.kth_smallest_magnitude(x, (n - 1) // 2, axes)
  return median.astype(jnp.float32)


MEASURES: dict[str, Measure] = {
  "absmean": absmean,
  "absmedian": absmedian,
  "absmax": absmax,
}
