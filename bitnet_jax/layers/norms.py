"""Flax norms that return NaN if their statistics overflow.

The variance of values around 1e20 exceeds float32. Then ``1 / sqrt(variance)``
is zero, and the norms of Flax return zeros.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class RMSNorm(nn.RMSNorm):
  """``nn.RMSNorm``, NaN where a mean of squares is not finite."""

  def __call__(self, x: Any, **options: Any) -> jax.Array:
    """Returns ``x`` divided by its root mean square, and scaled."""
    y = super().__call__(x, **options)
    return _nan_unless_finite(y, _mean_square(x, self.reduction_axes))


class LayerNorm(nn.LayerNorm):
  """``nn.LayerNorm``, NaN where a mean of squares is not finite."""

  def __call__(self, x: Any, **options: Any) -> jax.Array:
    """Returns ``x`` with mean 0 and variance 1, scaled and shifted."""
    y = super().__call__(x, **options)
    return _nan_unless_finite(y, _mean_square(x, self.reduction_axes))


class BatchNorm(nn.BatchNorm):
  """``nn.BatchNorm``, NaN where a running variance is not finite.

  That of the batch is part of it.
  """

  def __call__(self, x: Any, *args: Any, **options: Any) -> jax.Array:
    """Normalizes by statistics of the batch, or by running ones."""
    y = super().__call__(x, *args, **options)
    axes = (self.axis,) if isinstance(self.axis, int) else self.axis
    features = {axis % y.ndim for axis in axes}
    reduced = [axis for axis in range(y.ndim) if axis not in features]
    variance = self.get_variable("batch_stats", "var")
    return _nan_unless_finite(y, jnp.expand_dims(variance, reduced))


def _mean_square(x, axes):
  """The reduction that the norm itself makes; compilers do it once."""
  return jnp.mean(jnp.square(x.astype(jnp.float32)), axes, keepdims=True)


def _nan_unless_finite(y, variance):
  # A factor, unlike a choice, makes the gradient NaN as well.
  return y * jnp.where(jnp.isfinite(variance), 1, jnp.nan).astype(y.dtype)
