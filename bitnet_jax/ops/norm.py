"""Parameter-free norms, before or together with quantization."""

import functools
import math
from typing import Any

import jax
from jaxtyping import Array, Float

from bitnet_jax import choices
from bitnet_jax.ops import lowering, xla
from bitnet_jax.quantizers.quantizer import Quantizer, check_real
from bitnet_jax.quantizers.recipe import LAYER_NORM_ALL, NORMS
from bitnet_jax.types import QTensor

NORM_EPS = xla.NORM_EPS


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

  The residuals are ``x`` itself and a mean and a factor for each group.
  Differentiable in reverse mode only.

  Args:
    x: values in any dtype of real numbers.
    norm: "layer_norm" ``(x - mean) / sqrt(variance + 1e-5)``, "rms_norm"
      ``x / sqrt(mean(x**2) + 1e-5)``, or ``None``, which returns ``x`` itself;
      "layer_norm_all" is "layer_norm" over all axes but the first.
    axes: axes of the mean: the contracted ones of a dense layer; all but the
      batch of a convolution, since over the channels alone a one-channel image
      would vanish.

  Returns:
    float32 array; ``x`` unchanged for ``None``.

  Raises:
    TypeError: for complex values.
    ValueError: for another norm.

  Example:
    >>> import jax
    >>> from bitnet_jax.ops import normalize
    >>> y = normalize(jax.numpy.array([[1.0, 3.0]]), "layer_norm")
    >>> y.round(2).tolist()
    [[-1.0, 1.0]]
  """
  choices.check(norm, NORMS, key="norm")
  if norm is None:
    return x
  check_real(x=x)
  return _normalize(x, *resolve_norm(norm, axes, x.ndim))


def resolve_norm(
  norm: str | None, axes: tuple[int, ...], ndim: int
) -> tuple[Any, tuple[int, ...]]:
  """Returns a norm and its axes, without the name "layer_norm_all".

  Args:
    norm: see ``normalize``.
    axes: the axes that share one activation scale.
    ndim: number of axes of the input; a single token has no axis to leave out.
  """
  if norm != LAYER_NORM_ALL:
    return norm, axes
  others = tuple(range(1 - ndim, 0))
  return "layer_norm", others or axes


def quantizes_rows(
  x: Float[Array, "*shape"],
  norm: str | None,
  quantizer: Quantizer,
  *,
  axes: tuple[int, ...],
) -> bool:
  """Whether a kernel normalizes and quantizes at once."""
  last = list(range(x.ndim - len(axes), x.ndim))
  if sorted(axis % x.ndim for axis in axes) != last:
    return False
  options = {"norm": norm, "quantizer": quantizer}
  return lowering.QUANTIZE_ROWS.choose(x, **options).is_kernel


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
  outer = x.ndim - len(axes)
  rows = x.reshape(*x.shape[:outer], math.prod(x.shape[outer:]))
  latent, codes, scale = _quantize_rows(rows, norm, quantizer)
  return QTensor(
    codes.reshape(x.shape),
    scale.reshape(*scale.shape[:-1], *(1 for _ in axes)),
    latent.reshape(x.shape),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _normalize(x, norm, axes):
  return xla.normalize(x, norm, axes)[0]


def _normalize_forward(x, norm, axes):
  y, mean, factor = xla.normalize(x, norm, axes)
  return y, (x, mean, factor)


def _normalize_backward(norm, axes, residuals, g):
  return (lowering.NORM_GRADIENT(*residuals, g, norm=norm, axes=axes),)


_normalize.defvjp(_normalize_forward, _normalize_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _quantize_rows(x, norm, quantizer):
  """Returns the normalized rows (unused in most programs), codes and scale."""
  return _quantize_rows_forward(x, norm, quantizer)[0]


def _quantize_rows_forward(x, norm, quantizer):
  codes, scale, mean, factor = lowering.QUANTIZE_ROWS(
    x, norm=norm, quantizer=quantizer
  )
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
