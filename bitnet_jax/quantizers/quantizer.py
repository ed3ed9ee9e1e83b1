"""The quantizer of one operand: float values to integer codes and a scale.

Equations 1 to 3 of Ma et al., The Era of 1-bit LLMs (arXiv 2402.17764), with
the mean or the median of BitNet b1.58 Reloaded (arXiv 2407.09527).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from bitnet_jax import choices
from bitnet_jax.quantizers.measures import MEASURES
from bitnet_jax.types import QTensor

TERNARY_RANGE = (-1, 1)
_LARGEST_SCALE = 2.0**126  # Its reciprocal is a normal float32.
TWN_THRESHOLD = 0.7  # Li et al., Ternary Weight Networks (1605.04711), eq. 6.


@dataclasses.dataclass(frozen=True)
class Quantizer:
  """Quantizes one operand of a product to int8 codes and a scale.

  With ``m`` the measure of ``|x|`` over the elements that share a scale and
  ``Q = max(|low|, |high|)``, the codes are
  ``clip(round(x * (Q / max(m, eps))), low, high)`` and the scale is
  ``max(m, eps) / Q``. Ties round to even. All computations are in float32,
  whatever the dtype of ``x``, and the scale carries no gradient. The scale is
  NaN if an element is NaN or infinite, or if the measure is so large (8.5e37
  for ternary codes) that ``Q / m`` is subnormal, which CPUs flush to zero.

  Attributes:
    measure: a name in ``MEASURES``: "absmean", "absmedian" or "absmax".
    range: lowest and highest code, within int8; (-1, 1) is ternary.
    axis: the axis that is reduced to one scale, for operands in canonical form
      (activations [token, contracted], weights [contracted, output]): -1 is
      one scale per token, 0 one per output channel, ``None`` one per tensor.
    eps: floor of the measure, so that all-zero inputs map to zeros.
    rounding: a name in ``ROUNDINGS``. "nearest" is the formula above.
      "stochastic" rounds ``|x / scale|`` up with the probability of its
      fraction, else down, and needs a key; a ternary code is the sign with
      probability ``min(|x / scale|, 1)``, else 0. "sign" never gives 0 (binary
      networks). "threshold" zeroes values up to 0.7 of the measure, and its
      scale is the mean magnitude of the others (ternary weight networks).
      "sign" and "threshold" require the range (-1, 1).

  Raises:
    ValueError: on construction, naming the field, its value and the choices.

  Example:
    >>> import jax
    >>> from bitnet_jax import Quantizer
    >>> weights = jax.numpy.array([0.1, -2.0, 1.5, 0.4])
    >>> q = Quantizer("absmean", (-1, 1)).quantize(weights)
    >>> q.codes.tolist(), q.scale.tolist()
    ([0, -1, 1, 0], [1.0])
  """

  measure: str
  range: tuple[int, int]
  _: dataclasses.KW_ONLY
  axis: int | None = None
  eps: float = 1e-5
  rounding: str = "nearest"

  def __post_init__(self):
    choices.check(self.measure, MEASURES, key="measure")
    choices.check(self.rounding, ROUNDINGS, key="rounding")
    choices.check(self.axis, (None, 0, -1), key="axis")
    object.__setattr__(self, "range", tuple(self.range))
    low, high = self.range
    if not -128 <= low < high <= 127:
      raise ValueError(
        f"range is {self.range}; it must be (low, high) with low < high, both"
        " within int8: -128 to 127"
      )
    ternary_only = self.rounding in ("sign", "threshold")
    if ternary_only and self.range != TERNARY_RANGE:
      raise ValueError(
        f"rounding {self.rounding!r} is for the range (-1, 1), not {self.range}"
      )
    if not self.eps > 0:
      raise ValueError(f"eps is {self.eps}; it must be positive")

  @property
  def largest_code(self) -> int:
    """Returns ``Q``, the larger of ``|low|`` and ``|high|``."""
    return max(abs(code) for code in self.range)

  @property
  def needs_key(self) -> bool:
    """Whether ``quantize`` draws random numbers."""
    return self.rounding == "stochastic"

  def quantize(
    self,
    x: Float[Array, "*shape"],
    *,
    axes: tuple[int, ...] | None = None,
    key: Key[Array, ""] | None = None,
    measured: Float[Array, "..."] | None = None,
  ) -> QTensor:
    """Quantizes ``x``.

    Args:
      x: values, in any float dtype.
      axes: the axes that share a scale, if ``x`` is not in canonical form; by
        default those of ``axis``.
      key: random key, for stochastic rounding.
      measured: the result of ``measured``, if already computed.

    Returns:
      int8 codes shaped like ``x``, and a float32 scale with the shared axes
      kept as size 1.

    Raises:
      TypeError: for complex values.
      ValueError: if the rounding needs a key and none is given.
    """
    check_real(x=x)
    if self.needs_key and key is None:
      raise ValueError("stochastic rounding needs a key; none was given")
    x32 = x.astype(jnp.float32)
    m = self.measured(x, axes=axes) if measured is None else measured
    codes, scale = ROUNDINGS[self.rounding](x32, m, self, key)
    return QTensor(codes.astype(jnp.int8), scale)

  def in_range(
    self, x: Float[Array, "*shape"], *, axes: tuple[int, ...] | None = None
  ) -> Bool[Array, "*shape"]:
    """Returns where clipping keeps the rounded value; true for NaN."""
    m = self.measured(x, axes=axes)
    rounded = jnp.round(x.astype(jnp.float32) * (self.largest_code / m))
    low, high = self.range
    return ~((rounded < low) | (rounded > high))

  def measured(
    self, x: Float[Array, "*shape"], *, axes: tuple[int, ...] | None = None
  ) -> Float[Array, "..."]:
    """Returns the measure of ``|x|``, at least ``eps``; see ``quantize``.

    Raises:
      TypeError: for complex values.
    """
    check_real(x=x)
    shared = range(x.ndim) if axes is None else axes
    if axes is None and self.axis is not None:
      shared = (self.axis % x.ndim,)
    if 0 in [x.shape[i] for i in shared]:  # An empty mean would be NaN.
      shape = [1 if i in shared else n for i, n in enumerate(x.shape)]
      return jnp.full(shape, self.eps, jnp.float32)
    m = jnp.maximum(MEASURES[self.measure](x, tuple(shared)), self.eps)
    return jnp.where(m / self.largest_code > _LARGEST_SCALE, jnp.nan, m)


def check_real(**operands: Any) -> None:
  """Raises a TypeError that names a complex operand.

  Args:
    **operands: arrays or ``QTensor`` by name; ``None`` is ignored.
  """
  for name, x in operands.items():
    if x is not None and jnp.issubdtype(x.dtype, jnp.complexfloating):
      raise TypeError(f"{name} is {x.dtype}; it must hold real numbers")


def _round_nearest(x, m, quantizer, key):
  del key
  q = quantizer.largest_code
  return jnp.clip(jnp.round(x * (q / m)), *quantizer.range), m / q


def _round_stochastic(x, m, quantizer, key):
  q = quantizer.largest_code
  magnitudes = jnp.abs(x * (q / m))
  down = jnp.floor(magnitudes)
  up = jax.random.uniform(key, x.shape) < magnitudes - down
  codes = jnp.sign(x) * (down + up.astype(x.dtype))
  return jnp.clip(codes, *quantizer.range), m / q


def _round_to_sign(x, m, quantizer, key):
  del quantizer, key
  return jnp.where(x < 0, -1, 1), m


def _round_above_threshold(x, m, quantizer, key):
  del key
  magnitudes = jnp.abs(x)
  kept = magnitudes > TWN_THRESHOLD * m
  axes = tuple(i for i, n in enumerate(m.shape) if n == 1)
  count = jnp.sum(kept.astype(jnp.float32), axes, keepdims=True)
  total = jnp.sum(jnp.where(kept, magnitudes, 0), axes, keepdims=True)
  scale = jnp.maximum(total / jnp.maximum(count, 1), quantizer.eps)
  scale = jnp.where(jnp.isnan(m), m, scale)
  return jnp.where(kept, jnp.sign(x), 0), scale


Rounding = Callable[..., tuple[Array, Array]]

# Each maps (x in float32, max(m, eps), quantizer, key) to codes and scale.
ROUNDINGS: dict[str, Rounding] = {
  "nearest": _round_nearest,
  "stochastic": _round_stochastic,
  "sign": _round_to_sign,
  "threshold": _round_above_threshold,
}
