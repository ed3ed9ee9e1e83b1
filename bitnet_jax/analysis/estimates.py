"""Estimates from few seeds: a value and its confidence distribution."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bitnet_jax.analysis import pairs
from bitnet_jax.analysis.distributions import (
  Distribution,
  Exponential,
  Fieller,
  Limits,
  Student,
  exp,
)
from bitnet_jax.extras import needed_by

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
  """An estimated number and how sure it is.

  Attributes:
    value: the estimate.
    seeds: number of seeds, pairs or trials that it comes from.
    distribution: its interval limits at every level.
    notes: what a reader must know, such as runs that were left out.
  """

  value: float
  seeds: int
  distribution: Distribution
  notes: tuple[str, ...] = ()

  def interval(self, level: float = LEVEL) -> tuple[float, float]:
    """Returns the two-sided interval; an end may be infinite."""
    tail = (1 - level) / 2
    low = self.distribution.quantile(tail)
    return low, self.distribution.quantile(1 - tail)

  def p_above(self, bound: float) -> float:
    """Returns the one-sided p-value of "the true value is above the bound"."""
    return self.distribution.cumulative(bound)

  def p_below(self, bound: float) -> float:
    """Returns the one-sided p-value of "the true value is below the bound"."""
    return 1 - self.distribution.cumulative(bound)


def standard_error(values: Any) -> float:
  """Returns the standard error of the mean; infinite for a single value."""
  values = _finite(values)
  count = len(values)
  if count < 2:
    return math.inf
  # Equal values differ from their computed mean by a rounding error.
  if np.ptp(values) == 0:
    return 0.0
  return float(values.std(ddof=1) / math.sqrt(count))


def mean(values: Any) -> Estimate:
  """Returns the mean with Student's t-interval.

  Verdicts use this interval. At 5 to 10 seeds it covers 90 to 96 % in
  simulations with normal, skewed and heavy-tailed values, where the BCa
  bootstrap covers 77 to 90 %.

  Args:
    values: ``[n]``, or ``Pairs``, of which the differences are used. Equal
      values give an interval without width.

  Raises:
    ValueError: for no values, and for values that are not finite.
  """
  notes = values.notes if isinstance(values, pairs.Pairs) else ()
  values = _finite(values)
  center, error = float(values.mean()), standard_error(values)
  if error == 0:
    notes = (*notes, "all values are equal")
  distribution = Student(center, error, max(len(values) - 1, 1))
  return Estimate(center, len(values), distribution, notes)


def unknown(seeds: int, reason: str) -> Estimate:
  """Returns an estimate of which the data say nothing.

  A verdict on it is "not decidable".

  Args:
    seeds: number of seeds of the data.
    reason: why, for its notes.
  """
  return Estimate(math.nan, seeds, Student(0.0, math.inf, 1), (reason,))


def geometric_mean(values: Any) -> Estimate:
  """Returns the geometric mean; the t-interval is that of the logarithms.

  Raises:
    ValueError: as ``mean``, and unless all values are positive.
  """
  values = _finite(values)
  if values.min() <= 0:
    raise ValueError(
      "a geometric mean needs positive values, but the smallest is "
      f"{values.min():g}"
    )
  log = mean(np.log(values))
  return Estimate(
    exp(log.value), log.seeds, Exponential(log.distribution), log.notes
  )


def jackknife(
  statistic: Callable[[np.ndarray], float], count: int, *, log: bool = False
) -> Estimate:
  """Returns a statistic with the t-interval of the jackknife over seeds.

  Args:
    statistic: a function of the indices of the seeds to use, ``int [k]``.
    count: number of seeds.
    log: whether to do this on the scale of the logarithm.

  Raises:
    ValueError: for fewer than two seeds.
  """
  if count < 2:
    raise ValueError(
      f"a jackknife needs at least 2 seeds, but there are {count}"
    )
  everything = np.arange(count)
  transform = math.log if log else float
  whole = transform(statistic(everything))
  without = np.array(
    [transform(statistic(np.delete(everything, i))) for i in everything]
  )
  # The error of the mean of the pseudo-values count * whole - (count - 1) *
  # without; its bias correction would add more noise than it takes.
  error = (count - 1) * standard_error(without)
  distribution: Distribution = Student(whole, error, count - 1)
  if log:
    distribution = Exponential(distribution)
  value = exp(whole) if log else whole
  return Estimate(value, count, distribution)


def bootstrap(
  values: Any,
  statistic: Callable[..., Any] = np.mean,
  *,
  resamples: int = 9999,
  seed: int = 0,
) -> Estimate:
  """Returns a statistic with its BCa bootstrap interval (SciPy's).

  The interval covers too rarely at few seeds: about 83 % instead of 95 % at 5
  normal values, and 89 % at 10. Use it for statistics that have no better one,
  from about 20 values.

  Args:
    values: ``[n]``; ``Pairs``, of which the differences are used; or a tuple
      of arrays ``[n]`` whose entries belong together and are drawn together.
    statistic: a function of the arrays and of ``axis``.
    resamples: number of resamples.
    seed: of the resamples; the same seed gives the same interval.

  Raises:
    ValueError: for fewer than two values, and for values that are not finite.
  """
  samples = values if isinstance(values, tuple) else (values,)
  samples = tuple(_finite(sample) for sample in samples)
  count = len(samples[0])
  if count < 2:
    raise ValueError(
      f"a bootstrap needs at least 2 values, but there is {count}"
    )
  value = float(statistic(*samples, axis=-1))
  with needed_by("a bootstrap", "scipy"):
    from scipy import stats
  options: dict[str, Any] = {"paired": len(samples) > 1}
  drawn = stats.bootstrap(
    samples,
    statistic,
    n_resamples=resamples,
    batch=1000,
    random_state=np.random.default_rng(seed),
    method="percentile",  # BCa has no limits if all resamples are equal.
    **options,
  )
  if np.ptp(drawn.bootstrap_distribution) <= 1e-12 * abs(value):
    distribution = Student(value, 0.0, 1)
    return Estimate(value, count, distribution, ("all values are equal",))

  def quantile(p: float) -> float:
    # A limit of one side at the confidence p or 1 - p, from the same resamples.
    upper = p > 0.5
    found = stats.bootstrap(
      samples,
      statistic,
      n_resamples=0,
      bootstrap_result=drawn,
      method="BCa",
      alternative="less" if upper else "greater",
      confidence_level=max(p, 1 - p),
      **options,
    ).confidence_interval
    return float(found.high if upper else found.low)

  return Estimate(value, count, Limits(quantile))


def ratio_of_means(sample: pairs.Pairs) -> Estimate:
  """Returns mean(first) / mean(second) of pairs, by Fieller's theorem.

  The interval has infinite ends if the second mean may be 0.

  Raises:
    ValueError: for values that are not finite, and a second mean of 0.
  """
  first, second = _finite(sample.first), _finite(sample.second)
  mean_a, mean_b = float(first.mean()), float(second.mean())
  if mean_b == 0:
    raise ValueError("a ratio of means needs a denominator whose mean is not 0")
  count, sign = len(first), math.copysign(1.0, mean_b)
  if count < 2:
    distribution: Distribution = Student(mean_a / mean_b, math.inf, 1)
  else:
    covariance = np.cov(first, second) / count
    distribution = Fieller(sign * mean_a, sign * mean_b, covariance, count - 1)
  return Estimate(mean_a / mean_b, count, distribution, sample.notes)


def slope(
  cells: Mapping[float, Mapping[int, float | None]],
  *,
  diverged: pairs.Diverged,
  log: bool = False,
) -> Estimate:
  """Returns the trend over ordered cells: how fast a metric changes.

  Each seed gives the slope of a least-squares line. Their mean has the
  t-interval over seeds, so the cells of one seed may depend on each other.

  Args:
    cells: by the position of the cell, such as its width, values by seed.
    diverged: what a diverged run counts as; "exclude" leaves its seed out.
    log: whether a step is a doubling of the position, not an addition of 1.

  Raises:
    ValueError: for fewer than two positions, and if no seed has all cells.
  """
  if len(cells) < 2:
    raise ValueError(
      f"a trend needs at least 2 cells, but there are {len(cells)}"
    )
  table = pairs.table(cells, diverged=diverged)
  x = np.array(list(cells), float)
  x = np.log2(x) if log else x
  x = x - x.mean()
  found = mean(table.values @ x / (x @ x))
  return dataclasses.replace(found, notes=(*table.notes, *found.notes))


def _finite(values: Any) -> np.ndarray:
  """Returns values as float64 ``[n]``, of ``Pairs`` the differences."""
  if isinstance(values, pairs.Pairs):
    values = values.differences
  values = np.asarray(values, float)
  if values.ndim != 1 or not len(values):
    raise ValueError(
      f"statistics need at least one value, but the shape is {values.shape}"
    )
  if not np.isfinite(values).all():
    raise ValueError(
      "a mean needs finite values: give diverged runs a finite value, leave "
      "their pairs out, or count wins"
    )
  return values
