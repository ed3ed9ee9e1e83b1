"""Success rates of runs, paired success rates, and counts of wins."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitnet_jax.analysis import estimates
from bitnet_jax.analysis.distributions import Limits
from bitnet_jax.analysis.pairs import Pairs
from bitnet_jax.choices import check
from bitnet_jax.extras import needed_by


@dataclasses.dataclass(frozen=True)
class Wins:
  """How often each of two sides wins.

  Attributes:
    first: cells or seeds that the first side wins.
    second: those that the second side wins.
    ties: those that neither wins; they are not part of the test.
    p_value: of the two-sided exact sign test that both win equally often.
    rate: fraction of wins of the first side, ties left out.
  """

  first: int
  second: int
  ties: int
  p_value: float
  rate: estimates.Estimate


def rate(successes: int, count: int) -> estimates.Estimate:
  """Returns a success rate with Wilson's interval.

  Args:
    successes: number of runs that succeeded.
    count: number of runs; 0 gives an interval from 0 to 1.

  Raises:
    ValueError: unless ``0 <= successes <= count``.
  """
  if not 0 <= successes <= count:
    raise ValueError(f"there are {successes} successes in {count} runs")
  if not count:
    unknown = Limits(lambda p: float(p > 0.5))
    return estimates.Estimate(0.5, 0, unknown, ("no runs",))
  fraction = successes / count
  limits = Limits(lambda p: _wilson(fraction, count, p))
  return estimates.Estimate(fraction, count, limits)


def difference(pairs: Pairs) -> estimates.Estimate:
  """Returns the difference of two success rates of paired runs.

  The interval is Newcombe's, which combines Wilson's intervals of both rates
  and their correlation. It has a width even where all runs succeed.

  Args:
    pairs: of values 0 (failure) and 1 (success).

  Raises:
    ValueError: for other values.

  References:
    Newcombe, Improved confidence intervals for the difference between binomial
    proportions based on paired data, 1998, method 10.
  """
  first, second = _binary(pairs)
  count = len(first)
  a, b = float(first.mean()), float(second.mean())
  phi = _correlation(first, second)

  def quantile(p: float) -> float:
    # The lower limit needs the lower limit of a and the upper one of b.
    da = _wilson(a, count, p) - a
    db = _wilson(b, count, 1 - p) - b
    # Of opposite signs: so the correlation enters with a plus.
    square = da * da + 2 * phi * da * db + db * db
    return a - b + math.copysign(math.sqrt(max(square, 0.0)), p - 0.5)

  limits = Limits(quantile)
  return estimates.Estimate(a - b, count, limits, pairs.notes)


def mcnemar(pairs: Pairs) -> float:
  """Returns the p-value of McNemar's exact test of paired success rates.

  Raises:
    ValueError: for values other than 0 and 1.
  """
  first, second = _binary(pairs)
  return _sign_test(int((first > second).sum()), int((second > first).sum()))


def wins(
  differences: Mapping[Any, Any] | np.ndarray, *, better: str, tie: float = 0.0
) -> Wins:
  """Counts in how many cells, or for how many seeds, the first side wins.

  Args:
    differences: first minus second, ``[n]``; or by cell a number, an
      ``Estimate``, or ``Pairs``, whose mean difference counts. Infinite values
      are allowed.
    better: "higher" or "lower": which values of the metric win.
    tie: largest absolute difference that is a tie.
  """
  check(better, ("higher", "lower"), key="better")
  values = differences
  if isinstance(values, Mapping):
    values = np.array([_center(value) for value in values.values()])
  values = np.asarray(values, float) * (1 if better == "higher" else -1)
  first, second = int((values > tie).sum()), int((values < -tie).sum())
  ties = len(values) - first - second
  return Wins(
    first, second, ties, _sign_test(first, second), rate(first, first + second)
  )


def _center(value: Any) -> float:
  if isinstance(value, Pairs):
    return float(value.differences.mean())
  return float(getattr(value, "value", value))


def _sign_test(first: int, second: int) -> float:
  if not first + second:
    return 1.0
  with needed_by("a sign test", "scipy"):
    from scipy import stats
  return float(stats.binomtest(first, first + second).pvalue)


def _wilson(fraction: float, count: int, p: float) -> float:
  """Returns Wilson's one-sided limit at confidence ``p``."""
  with needed_by("success rates", "scipy"):
    from scipy import special
  z = float(special.ndtri(min(max(p, 1e-15), 1 - 1e-15)))
  square = z * z / count
  center = fraction + square / 2
  half = z * math.sqrt(fraction * (1 - fraction) / count + square / (4 * count))
  return min(max((center + half) / (1 + square), 0.0), 1.0)


def _binary(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
  for values in (pairs.first, pairs.second):
    if not np.isin(values, (0.0, 1.0)).all():
      raise ValueError(
        "success rates need values 0 and 1, but there is "
        f"{values[~np.isin(values, (0.0, 1.0))][0]:g}"
      )
  return pairs.first, pairs.second


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
  """Returns Newcombe's correlation, corrected for continuity if positive."""
  n = len(first)
  both = float((first * second).sum())
  neither = float(((1 - first) * (1 - second)).sum())
  only_first = float((first * (1 - second)).sum())
  only_second = n - both - neither - only_first
  product = (
    (both + only_first)
    * (only_second + neither)
    * (both + only_second)
    * (only_first + neither)
  )
  if product == 0:
    return 0.0
  above = both * neither - only_first * only_second
  if above > n / 2:
    above -= n / 2
  elif above > 0:
    above = 0.0
  return above / math.sqrt(product)
