"""Means over seeds with 95 % intervals, and paired differences."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bitnet_jax.analysis import estimates

CONFIDENCE = estimates.LEVEL


class Estimate(NamedTuple):
  """A mean with its interval.

  Attributes:
    mean: of the values.
    low: lower end of Student's t-interval; ``None`` for one value.
    high: its upper end.
    count: number of values.
    p_value: of the two-sided t-test that the mean is 0; ``None`` for one value,
      and for equal values, of which it is not defined.
  """

  mean: float
  low: float | None
  high: float | None
  count: int
  p_value: float | None = None


def estimate(values: Sequence[float]) -> Estimate:
  """Returns mean, t-interval and t-test of independent values.

  The interval is ``mean +- t * s / sqrt(n)`` with the quantile t of Student's
  distribution of n - 1 degrees of freedom and the deviation s.
  """
  count, mean = len(values), statistics.fmean(values)
  if count == 1:
    return Estimate(mean, None, None, 1)
  found = estimates.mean(values)
  low, high = found.interval(CONFIDENCE)
  if low == high:
    return Estimate(mean, mean, mean, count)
  # Of the lower tail, since 1 - p has no small values.
  above = estimates.mean([math.copysign(1, mean) * value for value in values])
  p_value = 2 * above.p_above(0)
  return Estimate(mean, low, high, count, p_value)


def paired(
  values: Mapping[int, float], baseline: Mapping[int, float]
) -> Estimate | None:
  """Returns the mean difference of values with the same seed.

  Args:
    values: by seed.
    baseline: what is subtracted, likewise.

  Returns:
    With the paired t-test, that the difference is 0; ``None`` if they have no
    seed in common.
  """
  differences = [values[s] - baseline[s] for s in values if s in baseline]
  return estimate(differences) if differences else None
