"""Runs that succeed or fail: success rates, and the widths that nets need."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from bitnet_jax.analysis import capacity, estimates, proportions, verdicts
from bitnet_jax.analysis.estimates import Estimate
from bitnet_jax.studies.findings import Axis, Column, Figure, Series, Table
from bitnet_jax.studies.runs import Runs


@dataclasses.dataclass(frozen=True)
class Successes:
  """Which runs of one precision succeed, by width.

  Attributes:
    precision: in the cells of the runs.
    rate: their learning rate.
    failed: by width and seed, 1 for a run that failed and 0 for another.
  """

  precision: str
  rate: float
  failed: Mapping[float, Mapping[int, float | None]]

  @property
  def rates(self) -> dict[float, Estimate]:
    """The fraction of runs that succeed by width, with Wilson's interval."""
    return {
      width: proportions.rate([*runs.values()].count(0), len(runs))
      for width, runs in self.failed.items()
    }

  def smallest(self, fraction: float) -> float | None:
    """Returns the smallest width at which this fraction succeeds, if any."""
    found = self.rates.items()
    return min((w for w, r in found if r.value >= fraction), default=None)


def at_best_rates(
  runs: Runs, metric: str, level: float, *, chosen_by: str
) -> dict[str, Successes]:
  """Returns the successes of each precision, at its best learning rate.

  Args:
    runs: runs of cells with the keys "hidden", "rate" and "precision".
    metric: see ``Run.value``; more is better.
    level: the value that a run must reach. A run that diverged failed.
    chosen_by: the metric whose mean over widths and seeds chooses the rate.
  """
  found = {}
  for precision in runs.choices("precision"):
    of = runs.where(precision=precision)
    rate = of.best("rate", chosen_by)
    failed: dict[float, dict[int, float | None]] = {
      width: {seed: float(not value >= level) for seed, value in values.items()}
      for width, values in of.where(rate=rate).curve("hidden", metric).items()
    }
    found[precision] = Successes(precision, rate, failed)
  return found


def wider(
  reference: Successes, candidate: Successes, times: float, **about: Any
) -> verdicts.Verdict:
  """Returns whether a precision needs more hidden units for equal failures.

  Args:
    reference: of the precision that needs fewer.
    candidate: of the other one.
    times: how many times more it needs at least, see ``capacity.ratio``.
    **about: further arguments of ``verdicts.verdict``.
  """
  try:
    ratio = capacity.ratio(
      reference.failed, candidate.failed, diverged="exclude"
    )
  except capacity.NoOverlapError as error:
    seeds = min(map(len, candidate.failed.values()))
    ratio = estimates.unknown(seeds, f"{error}")
  return verdicts.verdict(
    "in range",
    ratio,
    bounds=(times, math.inf),
    statement=f"{candidate.precision} needs {times:g} times the hidden units of"
    f" {reference.precision}, or more",
    unit="times",
    **about,
  )


def tables(found: Iterable[Successes]) -> list[Table]:
  """Returns the success rates, and the smallest widths for 50 and 90 %."""
  cell = [Column("precision"), Column("rate"), Column("hidden")]
  success = [Column("success", digits=2), Column("low", "from", digits=2)]
  success += [Column("high", "to (95 %)", digits=2), Column("runs")]
  least = [Column(f"hidden_{p}", f"{p} % succeed from") for p in (50, 90)]
  rates = [
    [of.precision, of.rate, width, rate.value, *rate.interval(), rate.seeds]
    for of in found
    for width, rate in of.rates.items()
  ]
  widths = [
    [of.precision, of.rate, of.smallest(0.5), of.smallest(0.9)] for of in found
  ]
  return [
    Table("least", "Hidden units that are needed", [*cell[:2], *least], widths),
    Table("success", "Success rates", [*cell, *success], rates),
  ]


def figure(found: Iterable[Successes], title: str) -> Figure:
  """Returns the success rates over the widths."""
  series = []
  for of in found:
    rates = of.rates.values()
    low, high = zip(*(rate.interval() for rate in rates), strict=True)
    values = [rate.value for rate in rates]
    series.append(Series(of.precision, [*of.failed], values, low, high))
  x, y = Axis("hidden", log=True), Axis("Success rate")
  return Figure("success", title, "lines", x, y, series)
