"""Norms without parameters, applied before activations are quantized."""

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
  x = x.astype(jnp.float32)
  if norm == "layer_norm":
    x = x - jnp.mean(x, axes, keepdims=True)
  elif norm != "rms_norm":
    raise ValueError(f"norm is {norm!r}, not layer_norm, rms_norm or None")
  mean_square = jnp.mean(jnp.square(x), axes, keepdims=True)
  return x * jax.lax.rsqrt(mean_square + NORM_EPS)
