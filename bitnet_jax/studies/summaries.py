"""Tables and series of means over seeds, for the findings of a study."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax.analysis import estimates
from bitnet_jax.studies.findings import Column, Series, Table
from bitnet_jax.studies.runs import At, Runs

BySeed = Mapping[int, float]  # NaN for a run that diverged


def mean(values: BySeed) -> tuple[float, float, float]:
  """Returns mean and ends of its 95 % interval, without NaN among the values.

  All are NaN if no value is left; the ends are if there is one.
  """
  kept = [value for value in values.values() if math.isfinite(value)]
  if not kept:
    return math.nan, math.nan, math.nan
  found = estimates.mean(kept)
  low, high = found.interval() if len(kept) > 1 else (math.nan, math.nan)
  return found.value, low, high


def curve(runs: Runs, key: str, metric: str) -> dict[Any, dict[int, float]]:
  """Returns a metric by seed for each value of a key of the cells."""
  cells = runs.group(key).items()
  return {value: found.by_seed(metric) for (value,), found in cells}


def over_steps(runs: Runs, metric: str) -> dict[float, dict[int, float]]:
  """Returns a curve by seed for each step, of runs of one cell."""
  found: dict[float, dict[int, float]] = {}
  for run in runs:
    for step, value in zip(*run.curve(metric), strict=True):
      found.setdefault(step, {})[run.seed] = value
  return found


def series(name: str, cells: Mapping[Any, BySeed]) -> Series:
  """Returns means with their intervals, over the keys of ``cells``."""
  found = np.array([mean(values) for values in cells.values()])
  middle, low, high = found.reshape(-1, 3).T
  return Series(name, [*cells], list(middle), low=list(low), high=list(high))


def heat(name: str, cells: Mapping[tuple[Any, Any], BySeed]) -> Series:
  """Returns means as a heat map; the keys of ``cells`` are pairs (x, y).

  A pair that is absent is a gap.
  """
  columns, rows = (sorted({key[i] for key in cells}) for i in range(2))
  z = [[mean(cells.get((x, y), {}))[0] for x in columns] for y in rows]
  return Series(name, columns, rows, z=z)


def table(
  name: str,
  title: str,
  runs: Runs,
  keys: Sequence[str],
  metric: str,
  *,
  at: At = "final",
  label: str = "",
  digits: int = 3,
) -> Table:
  """Returns the mean of a metric in each cell, with its interval.

  Args:
    name: of the table.
    title: for readers.
    runs: its runs.
    keys: of the cells, one column each; other keys must not distinguish runs.
    metric: see ``Run.value``.
    at: see ``Run.value``.
    label: of the metric; its name by default.
    digits: decimal places of the metric.
  """
  rows = []
  for cell, found in runs.group(*keys).items():
    values = found.by_seed(metric, at)
    diverged = sum(run.diverged for run in found)
    rows.append([*cell, *mean(values), len(values) - diverged, diverged])
  columns = [
    *map(Column, keys),
    Column("mean", label or metric, digits=digits),
    Column("low", "from", digits=digits),
    Column("high", "to (95 %)", digits=digits),
    Column("runs"),
    Column("diverged"),
  ]
  return Table(name, title, columns, rows)
