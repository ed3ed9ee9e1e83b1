"""Capacity ratio: how many times wider a net must be to reach a loss."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np

from bitnet_jax.analysis import estimates, pairs
from bitnet_jax.choices import check
from bitnet_jax.extras import needed_by

Curve = Mapping[float, pairs.Values]
Model = Literal["power", "trend"]
_GRID = 64


class NoOverlapError(ValueError):
  """Two families reach no loss in common, so no width can be compared."""


def ratio(
  reference: Curve,
  candidate: Curve,
  *,
  diverged: pairs.Diverged,
  at: float | None = None,
) -> estimates.Estimate:
  """Returns how many times wider the candidate must be than the reference.

  The mean loss of each family over seeds is a line over log width between its
  widths, made non-increasing. The ratio of widths at equal loss is averaged
  (geometrically) over the losses that both families reach. Its interval is
  that of the jackknife over paired seeds, on the log scale.

  Args:
    reference: by width, losses by seed.
    candidate: likewise; its widths may differ.
    diverged: what a diverged run counts as; "exclude" leaves its seed out.
    at: a width of the reference: the ratio at its loss alone.

  Returns:
    The ratio; its notes say which losses were compared.

  Raises:
    NoOverlapError: if no loss, or not that of ``at``, is reached by both.
    ValueError: for fewer than two widths or seeds, and if ``at`` is outside of
      the widths.
  """
  data = _align(reference, candidate, diverged)
  if at is not None and not data.x[0] <= math.log(at) <= data.x[-1]:
    raise ValueError(
      f"at is {at:g}, which is outside the widths of the reference: "
      f"{math.exp(data.x[0]):g} to {math.exp(data.x[-1]):g}"
    )

  def statistic(rows: np.ndarray) -> float:
    left, right = map(_falling, _means(data, rows))
    if at is None:
      return math.exp(_shift(data, left, right))
    loss = float(np.interp(math.log(at), data.x, left))
    low, high = right[-1], right[0]
    if not low <= loss <= high:
      raise NoOverlapError(
        f"the reference of width {at:g} has a loss of {loss:.4g}, but the "
        f"candidate reaches {low:.4g} to {high:.4g}: add widths, or extrapolate"
      )
    return math.exp(float(_inverse(data.z, right, loss))) / at

  found = estimates.jackknife(statistic, len(data.seeds), log=True)
  left, right = map(_falling, _means(data, np.arange(len(data.seeds))))
  low, high = max(left[-1], right[-1]), min(left[0], right[0])
  if at is not None:
    low = high = float(np.interp(math.log(at), data.x, left))
  note = f"compared at losses of {low:.4g} to {high:.4g}"
  return dataclasses.replace(found, notes=(*data.notes, note))


def extrapolate(
  reference: Curve,
  candidate: Curve,
  widths: Iterable[float],
  *,
  diverged: pairs.Diverged,
  model: Model = "power",
) -> dict[float, estimates.Estimate]:
  """Returns the capacity ratio at further widths of the reference.

  The model "power" fits ``loss = floor + a * width ** -b`` to both families,
  with one floor (the entropy of the data) and an ``a`` and ``b`` for each. The
  model "trend" takes the ratio at each width of the reference whose loss the
  candidate reaches, and extends their line over log width. The intervals are
  those of the jackknife over paired seeds: they do not contain the error of the
  model, so report both.

  Args:
    reference: by width, losses by seed; at least 3 widths for "power".
    candidate: likewise.
    widths: of the reference.
    diverged: what a diverged run counts as; "exclude" leaves its seed out.
    model: "power" or "trend".

  Returns:
    The ratio by width.

  Raises:
    ValueError: for too few widths or seeds, for another model, and if the
      candidate reaches too few losses of the reference (``NoOverlapError``).
  """
  check(model, ("power", "trend"), key="model")
  data = _align(reference, candidate, diverged)
  needed = 3 if model == "power" else 2
  if min(len(data.x), len(data.z)) < needed:
    raise ValueError(
      f"the model {model!r} needs at least {needed} widths, but there are "
      f"{len(data.x)} and {len(data.z)}"
    )
  fit = _fit_power if model == "power" else _fit_trend
  fitted: dict[bytes, Callable[[float], float]] = {}

  def wider(rows: np.ndarray, width: float) -> float:
    key = rows.tobytes()
    if key not in fitted:
      fitted[key] = fit(data, *_means(data, rows))
    return math.exp(fitted[key](math.log(width)))

  found = {}
  for width in widths:
    statistic = functools.partial(wider, width=width)
    estimate = estimates.jackknife(statistic, len(data.seeds), log=True)
    notes = (*data.notes, f"extrapolated by the model {model!r}")
    found[width] = dataclasses.replace(estimate, notes=notes)
  return found


@dataclasses.dataclass(frozen=True)
class _Data:
  """Aligned losses: log widths ``x`` and ``z``, losses ``[seeds, widths]``."""

  seeds: tuple[int, ...]
  x: np.ndarray
  left: np.ndarray
  z: np.ndarray
  right: np.ndarray
  notes: tuple[str, ...]


def _align(
  reference: Curve, candidate: Curve, diverged: pairs.Diverged
) -> _Data:
  for name, curve in (("reference", reference), ("candidate", candidate)):
    if len(curve) < 2 or min(curve) <= 0:
      raise ValueError(
        f"the {name} needs at least 2 widths above 0, but has {sorted(curve)}"
      )
  x, z = sorted(reference), sorted(candidate)
  cells = {("reference", w): reference[w] for w in x}
  cells |= {("candidate", w): candidate[w] for w in z}
  found = pairs.table(cells, diverged=diverged)
  left, right = np.split(found.values, [len(x)], axis=1)
  return _Data(found.seeds, np.log(x), left, np.log(z), right, found.notes)


def _means(data: _Data, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  return data.left[rows].mean(axis=0), data.right[rows].mean(axis=0)


def _falling(losses: np.ndarray) -> np.ndarray:
  """Returns the nearest non-increasing losses."""
  with needed_by("a capacity ratio", "scipy"):
    from scipy import optimize
  return optimize.isotonic_regression(losses, increasing=False).x


def _inverse(widths: np.ndarray, losses: np.ndarray, loss: Any) -> np.ndarray:
  """Returns the log widths at which a non-increasing curve has the losses."""
  return np.interp(loss, losses[::-1], widths[::-1])


def _shift(data: _Data, left: np.ndarray, right: np.ndarray) -> float:
  """Returns the mean distance of two curves along the axis of log width."""
  low, high = max(left[-1], right[-1]), min(left[0], right[0])
  if low >= high:
    raise NoOverlapError(
      f"the reference reaches losses of {left[-1]:.4g} to {left[0]:.4g}, the "
      f"candidate of {right[-1]:.4g} to {right[0]:.4g}: they have none in "
      "common; add widths, or extrapolate"
    )
  losses = low + (high - low) * (np.arange(_GRID) + 0.5) / _GRID
  wide = _inverse(data.z, right, losses) - _inverse(data.x, left, losses)
  return float(wide.mean())


def _fit_trend(
  data: _Data, left: np.ndarray, right: np.ndarray
) -> Callable[[float], float]:
  """Returns the shift as a line over log width."""
  left, right = _falling(left), _falling(right)
  # The widths are those of all seeds, so that each resample has the same ones.
  whole = _falling(data.left.mean(axis=0)), _falling(data.right.mean(axis=0))
  reached = (whole[0] >= whole[1][-1]) & (whole[0] <= whole[1][0])
  if reached.sum() < 2:
    raise NoOverlapError(
      f"the candidate reaches the losses of {reached.sum()} widths of the "
      "reference, but a trend needs 2: add widths"
    )
  x = data.x[reached]
  slope, start = np.polyfit(x, _inverse(data.z, right, left[reached]) - x, 1)
  return lambda w: float(start + slope * w)


def _fit_power(
  data: _Data, left: np.ndarray, right: np.ndarray
) -> Callable[[float], float]:
  """Returns the shift as a function of log width, for power laws."""
  with needed_by("a capacity ratio", "scipy"):
    from scipy import optimize
  center, lowest = data.x.mean(), float(min(left.min(), right.min()))
  x, z = data.x - center, data.z - center

  def residuals(p: np.ndarray) -> np.ndarray:
    a, b, c, d, fraction = p
    floor = fraction * lowest
    fitted = floor + np.exp(np.concatenate([a - b * x, c - d * z]))
    return fitted - np.concatenate([left, right])

  # The sum has several minima if the curves hardly level off.
  tries = []
  for fraction in (0.1, 0.5, 0.9):
    a, c = (math.log(v.mean() - fraction * lowest) for v in (left, right))
    tries.append(
      optimize.least_squares(
        residuals,
        (a, 0.5, c, 0.5, fraction),
        bounds=((-20, 0.01, -20, 0.01, 0), (20, 5, 20, 5, 0.999)),
      )
    )
  a, b, c, d, _ = min(tries, key=lambda found: found.cost).x
  return lambda w: float((c - a + b * (w - center)) / d - (w - center))
