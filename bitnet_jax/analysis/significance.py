"""Tests against a margin, and Holm's correction for several tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitnet_jax.analysis import estimates
from bitnet_jax.choices import check


def holm(p_values: Sequence[float]) -> np.ndarray:
  """Returns Holm's adjusted p-values.

  Rejecting where the adjusted value is at most alpha keeps the probability of
  any wrong rejection at alpha, whatever the tests' dependence.

  Args:
    p_values: ``[m]``.
  """
  found = np.asarray(p_values, float)
  order = np.argsort(found, kind="stable")
  factors = np.arange(len(found), 0, -1)
  adjusted = np.empty_like(found)
  adjusted[order] = np.maximum.accumulate(found[order] * factors)
  return np.minimum(adjusted, 1.0)


def tost(sample: Any, margin: float) -> float:
  """Returns the p-value of equivalence by two one-sided tests.

  It is the larger of the p-values of "above -margin" and "below margin". At
  most alpha means that the interval of level 1 - 2 alpha is within the margin.

  Args:
    sample: ``Pairs``, an ``Estimate``, or differences ``[n]``.
    margin: the largest difference that does not matter.

  Raises:
    ValueError: unless the margin is positive.
  """
  found = _estimate(sample, margin)
  return max(found.p_above(-margin), found.p_below(margin))


def non_inferiority(sample: Any, margin: float, *, better: str) -> float:
  """Returns the p-value of "first is not worse than second by the margin".

  Args:
    sample: see ``tost``.
    margin: the largest loss that does not matter.
    better: "higher" or "lower": which values of the metric are better.

  Raises:
    ValueError: unless the margin is positive, and for another word.
  """
  check(better, ("higher", "lower"), key="better")
  found = _estimate(sample, margin)
  higher = better == "higher"
  return found.p_above(-margin) if higher else found.p_below(margin)


def _estimate(sample: Any, margin: float) -> estimates.Estimate:
  if not margin > 0:
    raise ValueError(f"margin is {margin!r}, but it must be positive")
  if isinstance(sample, estimates.Estimate):
    return sample
  return estimates.mean(sample)
