"""Norms without parameters, before activations are quantized or with it."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bitnet_jax.ops import kernels
from bitnet_jax.quantizers.quantizer import Quantizer, check_real
from bitnet_jax.types import QTensor

NORM_EPS = 1e-5


def normalize(
  x: Float[Array, "*shape"],
  norm: str | None,
  *,
  axes: tuple[int, ...] = (-1,),
) -> Float[Array, "*shape"]:
  """Normalizes ``x`` over the axes that share one activation scale.

  A group is NaN if a value in it is NaN or infinite, and if the sum of its
  squares exceeds float32, as it does for values of 1e20: its factor would be
  zero, and so would be the result.

  What is kept for the gradient is ``x`` itself and a mean and a factor for each
  group. Differentiable in reverse mode only.

  Args:
    x: values in any dtype of real numbers.
    norm: "layer_norm" ``(x - mean) / sqrt(variance + 1e-5)``, "rms_norm"
      ``x / sqrt(mean(x**2) + 1e-5)``, or ``None``, which returns ``x`` itself.
    axes: axes of the mean: the contracted ones of a dense layer; all but the
      batch of a convolution, since over the channels alone a one-channel image
      would vanish.

  Returns:
    float32 array; ``x`` unchanged for ``None``.

  Raises:
    TypeError: for complex values.
    ValueError: for another norm.
  """
  _check(norm)
  if norm is None:
    return x
  check_real(x=x)
  return _normalize(x, norm, axes)


def quantizes_rows(
  x: Float[Array, "*shape"], quantizer: Quantizer, *, axes: tuple[int, ...]
) -> bool:
  """Whether a kernel normalizes and quantizes at once.

  However few values there are, so that a row has its codes in any batch.
  """
  return (
    x.dtype == jnp.float32
    and quantizer.measure == "absmax"
    and quantizer.rounding == "nearest"
    and quantizer.axis is not None
    and sorted(axis % x.ndim for axis in axes)
    == list(range(x.ndim - len(axes), x.ndim))
    and kernels.suit(x)
  )


def quantize_rows(
  x: Float[Array, "*shape"],
  norm: str | None,
  quantizer: Quantizer,
  *,
  axes: tuple[int, ...],
) -> QTensor:
  """Normalizes over the last axes and quantizes, where ``quantizes_rows``.

  The norm is ``normalize``; the latent array is what that returns. Values that
  share a scale are read from memory once.
  """
  _check(norm)
  outer = x.ndim - len(axes)
  rows = x.reshape(*x.shape[:outer], math.prod(x.shape[outer:]))
  latent, codes, scale = _quantize_rows(rows, norm, quantizer)
  return QTensor(
    codes.reshape(x.shape),
    scale.reshape(*scale.shape[:-1], *(1 for _ in axes)),
    latent.reshape(x.shape),
  )


def _check(norm):
  if norm not in (None, "layer_norm", "rms_norm"):
    raise ValueError(f"norm is {norm!r}, not layer_norm, rms_norm or None")


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
  factor = jnp.where(factor > 0, factor, jnp.nan)  # 0 where squares overflow
  return x32 * factor, (x, mean, factor)


def _normalize_backward(norm, axes, residuals, g):
  x, mean, factor = residuals
  by_xla = functools.partial(_norm_gradients, axes=axes)
  of_rows = axes == (-1,) or axes == (x.ndim - 1,)
  if of_rows and x.dtype == jnp.float32 and kernels.suit(x):
    by_kernel = functools.partial(_norm_gradients_by_kernel, norm=norm)
    return (kernels.differentiable(by_kernel, by_xla, x, mean, factor, g),)
  return (by_xla(x, mean, factor, g),)


_normalize.defvjp(_normalize_forward, _normalize_backward)


def _norm_gradients_by_kernel(x, mean, factor, g, *, norm):
  mean = jnp.zeros_like(factor) if mean is None else mean
  return kernels.norm_gradients(x, mean, factor, g, norm=norm)


def _norm_gradients(x, mean, factor, g, *, axes):
  """Normalizes again, which is cheaper than to keep a second array.

  The mean of ``g * y`` comes from that of ``g * x``, for XLA to have no need of
  ``y`` as an array.
  """
  x32 = x.astype(jnp.float32)
  mean_g, mean_gy = 0.0, jnp.mean(g * x32, axes, keepdims=True) * factor
  if mean is not None:
    mean_g = jnp.mean(g, axes, keepdims=True)
    mean_gy = mean_gy - mean * mean_g * factor
    x32 = x32 - mean
  dx = (g - mean_g - x32 * factor * mean_gy) * factor
  return dx.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _quantize_rows(x, norm, quantizer):
  """Returns the normalized rows (unused in most programs), codes and scale."""
  return _quantize_rows_forward(x, norm, quantizer)[0]


def _quantize_rows_forward(x, norm, quantizer):
  def by_kernel(x):
    return kernels.quantize_rows(
      x,
      norm=norm,
      norm_eps=NORM_EPS,
      codes=quantizer.range,
      eps=quantizer.eps,
    )

  def by_xla(x):
    y, mean, factor = x, jnp.zeros_like(x[..., :1]), jnp.ones_like(x[..., :1])
    if norm is not None:
      y, (_, of_layer, factor) = _normalize_forward(x, norm, (-1,))
      mean = mean if of_layer is None else of_layer
    q = quantizer.quantize(y, axes=(x.ndim - 1,))
    return q.qvalue, q.scale, mean, factor

  codes, scale, mean, factor = kernels.differentiable(by_kernel, by_xla, x)
  y, residuals = x, None
  if norm is not None:
    mean = mean if norm == "layer_norm" else None
    y = (x if mean is None else x - mean) * factor
    residuals = x, mean, factor
  codes, scale = jax.lax.stop_gradient((codes, scale))
  return (y, codes, scale), residuals


def _quantize_rows_backward(norm, quantizer, residuals, cotangents):
  del quantizer
  g, *_ = cotangents
  if residuals is None:
    return (g,)
  return _normalize_backward(norm, (-1,), residuals, g)


_quantize_rows.defvjp(_quantize_rows_forward, _quantize_rows_backward)
