"""Norms without parameters, applied before activations are quantized."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NORM_EPS = 1e-5


def normalize(
  x: Float[Array, "*shape"],
  norm: str | None,
  *,
  axes: tuple[int, ...] = (-1,),
) -> Float[Array, "*shape"]:
  """Normalizes ``x`` over the axes that share one activation scale.

  What is kept for the gradient is ``x`` itself and a mean and a factor for each
  group. Differentiable in reverse mode only.

  Args:
    x: values in any float dtype.
    norm: "layer_norm" ``(x - mean) / sqrt(variance + 1e-5)``, "rms_norm"
      ``x / sqrt(mean(x**2) + 1e-5)``, or ``None``, which returns ``x`` itself.
    axes: axes of the mean: the contracted ones of a dense layer; all but the
      batch of a convolution, since over the channels alone a one-channel image
      would vanish.

  Returns:
    float32 array; ``x`` unchanged for ``None``.

  Raises:
    ValueError: for another norm.
  """
  if norm is None:
    return x
  if norm not in ("layer_norm", "rms_norm"):
    raise ValueError(f"norm is {norm!r}, not layer_norm, rms_norm or None")
  return _normalize(x, norm, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _normalize(x, norm, axes):
  return _normalize_forward(x, norm, axes)[0]


def _normalize_forward(x, norm, axes):
  x32, mean = x.astype(jnp.float32), None
  if norm == "layer_norm":
    mean = jnp.mean(x32, axes, keepdims=True)
    x32 = x32 - mean
  mean_square = jnp.mean(jnp.square(x32), axes, keepdims=True)
  factor = jax.lax.rsqrt(mean_square + NORM_EPS)
  return x32 * factor, (x, mean, factor)


def _normalize_backward(norm, axes, residuals, g):
  """Normalizes again, which is cheaper than to keep a second array.

  The mean of ``g * y`` comes from that of ``g * x``, for XLA to have no need of
  ``y`` as an array.
  """
  del norm
  x, mean, factor = residuals
  x32 = x.astype(jnp.float32)
  mean_g, mean_gy = 0.0, jnp.mean(g * x32, axes, keepdims=True) * factor
  if mean is not None:
    mean_g = jnp.mean(g, axes, keepdims=True)
    mean_gy = mean_gy - mean * mean_g * factor
    x32 = x32 - mean
  dx = (g - mean_g - x32 * factor * mean_gy) * factor
  return (dx.astype(x.dtype),)


_normalize.defvjp(_normalize_forward, _normalize_backward)
