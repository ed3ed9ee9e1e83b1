"""Baseline layers: quantization simulated in floats.

Other libraries work this way: round, multiply by the scale, and pass the
gradient through ``x + stop_gradient(rounded - x)``; the product is in float.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from bitnet_jax.ops import normalize

Measure = Callable[[jax.Array], jax.Array]


def _straight_through(x, scale, low, high):
  rounded = jnp.clip(jnp.round(x * scale), low, high) / scale
  return x + jax.lax.stop_gradient(rounded - x)


def _layer_norm(x, axes):
  x = x - jnp.mean(x, axes, keepdims=True)
  return x * jax.lax.rsqrt(jnp.mean(x**2, axes, keepdims=True) + 1e-5)


def _fake_operands(x, kernel, axes, measure):
  x = _layer_norm(x, axes)
  largest = jnp.max(jnp.abs(x), axes, keepdims=True)
  x = _straight_through(x, 127 / jnp.maximum(largest, 1e-5), -128, 127)
  size = jnp.maximum(measure(jnp.abs(kernel)), 1e-5)
  return x, _straight_through(kernel, 1 / size, -1, 1)


class FakeDense(nn.Module):
  """``nn.Dense`` with simulated quantization.

  Attributes:
    features: number of outputs.
    measure: mean or median of the magnitudes.
  """

  features: int
  measure: Measure = jnp.mean

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [*batch, d_in] to [*batch, features]."""
    shape = x.shape[-1], self.features
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, self.features)
    x, kernel = _fake_operands(x, kernel, (-1,), self.measure)
    return jnp.dot(x, kernel) + bias


class FakeConv(nn.Module):
  """``nn.Conv`` of a 3x3 window with simulated quantization.

  Attributes:
    features: number of output channels.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [batch, height, width, c_in] to [..., features]."""
    shape = 3, 3, x.shape[-1], self.features
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, self.features)
    x, kernel = _fake_operands(x, kernel, (1, 2, 3), jnp.mean)
    numbers = "NHWC", "HWIO", "NHWC"
    return bias + jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "SAME", dimension_numbers=numbers
    )


class NormConv(nn.Module):
  """The norm of ``BitConv``, then ``nn.Conv``.

  Attributes:
    features: number of output channels.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [batch, height, width, c_in] to [..., features]."""
    x = normalize(x, "layer_norm", axes=(1, 2, 3))
    return nn.Conv(self.features, (3, 3))(x)
