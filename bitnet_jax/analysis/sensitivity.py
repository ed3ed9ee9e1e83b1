"""How much a net depends on its learning rate, and how steadily it learns."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def usable_decades(losses: Mapping[float, float], margin: float) -> float:
  """Returns over how many decades of learning rate the loss is near its best.

  The loss is a line over the logarithm of the rate between the given rates. A
  part of that line is usable if it lies at most ``margin`` above the least
  given loss. A band that reaches the first or the last rate may be wider.

  Args:
    losses: final loss by learning rate, at least two; infinite or NaN for a run
      that diverged, beside which the line rises at once.
    margin: how far above the least loss is near, in units of the loss.

  Returns:
    The decades of all usable parts together; 0 if all runs diverged.

  Raises:
    ValueError: for fewer than two rates, a rate that is not positive, and a
      margin that is not positive.
  """
  if len(losses) < 2 or min(losses) <= 0:
    raise ValueError(
      f"losses has the rates {sorted(losses)}; it must have at least two, all"
      " above 0"
    )
  if not margin > 0:
    raise ValueError(f"margin is {margin}; it must exceed 0")
  rates = sorted(losses)
  values = np.array([losses[rate] for rate in rates], np.float64)
  values[np.isnan(values)] = math.inf
  limit = values.min() + margin
  if math.isinf(limit):
    return 0.0
  decades = 0.0
  for i, width in enumerate(np.diff(np.log10(rates))):
    low, high = sorted(values[i : i + 2])
    if high <= limit:
      decades += width
    elif low <= limit and math.isfinite(high):
      decades += width * (limit - low) / (high - low)
  return float(decades)


def bands(
  curve: Mapping[float, Mapping[int, float]], margin: float
) -> dict[int, float]:
  """Returns ``usable_decades`` of each seed.

  Args:
    curve: by learning rate, losses by seed; the seeds that all rates have are
      used.
    margin: see ``usable_decades``.
  """
  seeds = sorted(set.intersection(*({*losses} for losses in curve.values())))
  return {
    seed: usable_decades({rate: curve[rate][seed] for rate in curve}, margin)
    for seed in seeds
  }


def largest_rise(values: Sequence[float] | np.ndarray) -> float:
  """Returns how far a curve rises at most above its least earlier value.

  Of a loss, that is the largest sudden drop in quality during training.

  Args:
    values: the curve, in the order of steps; may be empty.

  Returns:
    0 for a curve that never rises.
  """
  curve = np.asarray(values, np.float64)
  if not curve.size:
    return 0.0
  return float(np.max(curve - np.minimum.accumulate(curve)))
