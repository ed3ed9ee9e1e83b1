"""How many seeds a question needs."""

from collections.abc import Callable

from bitnet_jax.analysis.estimates import LEVEL
from bitnet_jax.extras import needed_by

MOST = 10_000
POWER = 0.8


def seeds_for(
  deviation: float, half_width: float, *, level: float = LEVEL
) -> int | None:
  """Returns how many seeds make an interval as narrow as asked for.

  Args:
    deviation: standard deviation of the paired differences.
    half_width: largest distance from the mean to an end of the t-interval,
      such as the margin.
    level: of the interval.

  Returns:
    The smallest number of pairs, at least 2; ``None`` for more than 10,000.

  Raises:
    ValueError: unless ``half_width`` is positive and ``deviation`` is not
      negative.
  """
  if not half_width > 0 or not deviation >= 0:
    raise ValueError(
      f"half_width is {half_width!r} and deviation {deviation!r}, but a width "
      "must be positive and a deviation not negative"
    )
  return _smallest(2, lambda n: deviation * _factor(n, level) <= half_width)


def seeds_to_decide(
  decided: Callable[[float, float], bool],
  value: float,
  interval: tuple[float, float],
  count: int,
  *,
  level: float = LEVEL,
) -> int | None:
  """Returns how many seeds would decide a question that is still open.

  The effect and its deviation are taken as found, so the number is itself a
  rough estimate. That many seeds decide with a probability of about 0.8.

  Args:
    decided: whether an interval with these ends decides the question.
    value: the effect found.
    interval: its interval at ``level``.
    count: number of seeds that it comes from.
    level: of the intervals.

  Returns:
    The number, above ``count``; ``None`` for more than 10,000.
  """
  below, above = value - interval[0], interval[1] - value
  now = _factor(count, level)

  def enough(n: int) -> bool:
    scale = _factor(n, level, POWER) / now
    return decided(value - scale * below, value + scale * above)

  return _smallest(count + 1, enough)


def _factor(count: int, level: float, power: float = 0.5) -> float:
  """Returns the half width of an interval in units of the deviation."""
  with needed_by("statistics", "scipy"):
    from scipy import special
  quantiles = special.stdtrit(count - 1, [(1 + level) / 2, power])
  return float(quantiles.sum()) / count**0.5


def _smallest(first: int, enough: Callable[[int], bool]) -> int | None:
  """Returns the smallest sufficient number; more is enough where fewer is."""
  if not enough(MOST):
    return None
  low, high = first, max(first, MOST)
  while low < high:
    middle = (low + high) // 2
    if enough(middle):
      high = middle
    else:
      low = middle + 1
  return low
