"""Findings about ternary nets of equal size: quality, and speed of learning."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bitnet_jax.analysis import estimates, pairs, proportions, verdicts
from bitnet_jax.studies.case import PRECISIONS, Case
from bitnet_jax.studies.findings import (
  Axis,
  Column,
  Figure,
  Findings,
  Series,
  Table,
)
from bitnet_jax.studies.runs import Runs

FULL, MEAN, MEDIAN = "float32", "b158", "b158_median"
KEYS = ("data", "net", "epochs")
Key = tuple[Any, ...]  # the values of ``KEYS``
_POINTS = 100
_TIE = 1e-6  # points, by which equal means may differ in rounding
# A difference in the logarithm of steps that does not matter: 10 %.
_SAME_SPEED = math.log2(1.1)
_COLUMNS = (
  *map(Column, (*KEYS, "precision")),
  Column("parameters"),
  Column("seeds"),
  Column("quality", "test", "points", 2),
  Column("half", "half width of the interval", "points", 2),
  Column("difference", "less float32", "points", 2),
  Column("low", "from", "points", 2),
  Column("high", "to", "points", 2),
  Column("level", "level on valid", "points", 2),
  Column("steps", "steps to the level", digits=0),
  Column("reached", "runs that reach it"),
)


class Net(NamedTuple):
  """A network on a data set.

  Attributes:
    config: a file in ``configs``, optionally with ":VARIANT".
    changes: values by dotted key.
    rates: the learning rates of full precision and of ternary nets.
    every: number of steps between two evaluations.
    precisions: names in ``PRECISIONS``.
  """

  config: str
  changes: Mapping[str, Any]
  rates: tuple[float, float]
  every: int
  precisions: Sequence[str] = (FULL, MEAN, MEDIAN)


def cases(nets: Mapping[Key, Net], *, data: str, seeds: int) -> list[Case]:
  """Returns all nets in all their precisions, with seeds from 0.

  The cells have ``KEYS`` and "precision". Nothing is dropped out.

  Args:
    nets: by the values of ``KEYS``.
    data: folder of data sets, for "{data}" in "data.source".
    seeds: number of seeds.
  """
  found = []
  for key, net in nets.items():
    for precision in net.precisions:
      cell = dict(zip(KEYS, key, strict=True), precision=precision)
      overrides = {
        "total_epochs": cell["epochs"],
        "eval_every": net.every,
        "model.dropout": 0.0,
        "optim.learning_rate": net.rates[precision in (MEAN, MEDIAN)],
        **net.changes,
        **PRECISIONS[precision],
      }
      if "data.source" in overrides:
        source = overrides["data.source"].replace("{data}", data)
        overrides["data.source"] = source
      path = f"configs/{net.config}"
      found += [Case(path, cell, seed, overrides) for seed in range(seeds)]
  return found


def findings(
  runs: Runs,
  *,
  metric: str,
  margins: Mapping[str, float],
  chance: Mapping[str, float],
  equal: float,
  claims: tuple[int, ...] = (4, 5, 6),
) -> Findings:
  """Compares precisions with full precision, and both measures.

  The verdicts: nets of the measure "mean" are no worse than those in float32,
  one verdict for each margin; those of "median" reach a level in fewer steps;
  both measures end equally well. The last two are means over nets. The level is
  what nets in float32 have on "valid" at half of their length, on average. A
  run that does not reach it counts as if it had at its last step.

  Args:
    runs: with ``KEYS`` and "precision" in their cells.
    metric: name of a metric in [0, 1], of the splits "test" and "valid".
    margins: by "data": the difference that does not matter, in points.
    chance: by "data": what a run that diverged counts as, in points.
    equal: the margin for both measures, in points.
    claims: numbers of the three claims; fewer make fewer verdicts.
  """
  nets = runs.group(*KEYS)
  levels = {
    key: float(np.nanmean(full.values(f"valid/{metric}", at=key[2] / 2)))
    for key, full in runs.where(precision=FULL).group(*KEYS).items()
  }

  def compare(net: Key, first: str, second: str) -> pairs.Pairs:
    values = (
      _points(nets[net].where(precision=p), f"test/{metric}")
      for p in (first, second)
    )
    return pairs.pair(*values, diverged=chance[net[0]])

  found = []
  used = sorted({margins[net[0]] for net in nets})
  for margin in used:
    cells = {
      _name(net): compare(net, MEAN, FULL)
      for net in nets
      if margins[net[0]] == margin
    }
    data = sorted({net[0] for net in nets if margins[net[0]] == margin})
    found.append(
      verdicts.verdict(
        "no worse",
        cells,
        claim=claims[0],
        statement=f"Ternary nets of equal size ({MEAN}) match or pass {FULL}"
        f" on {', '.join(data)}",
        scale=runs.scale,
        unit="points",
        margin=margin,
        better="higher",
        combine="all",
        level=1 - (1 - estimates.LEVEL) / len(used),
      )
    )
  measures = {_name(net): compare(net, MEDIAN, MEAN) for net in nets}
  if len(claims) > 1:
    found += [
      _speed(runs, nets, f"valid/{metric}", levels, claims[1]),
      verdicts.verdict(
        "equal",
        measures,
        claim=claims[2],
        statement=f"Neither {MEDIAN} nor {MEAN} is better overall",
        scale=runs.scale,
        unit="points",
        margin=equal,
      ),
    ]
  return Findings(
    verdicts=found,
    tables=[
      _table(nets, compare, metric, levels),
      _wins({name: estimates.mean(p) for name, p in measures.items()}),
    ],
    figures=[_figure(nets, metric)],
  )


def _points(runs: Runs, metric: str) -> dict[int, float]:
  return {seed: _POINTS * v for seed, v in runs.by_seed(metric).items()}


def _name(net: Key) -> str:
  return ", ".join(f"{k}={v}" for k, v in zip(KEYS, net, strict=True))


def _steps(runs: Runs, metric: str, level: float) -> dict[int, float]:
  """Returns the steps to a level by seed, of the last step if it is missed."""
  return {
    run.seed: run.steps_to(metric, level) or run.record["step"] for run in runs
  }


def _speed(runs, nets, metric, levels, claim) -> verdicts.Verdict:
  cells = {}
  for net, found in nets.items():
    steps = (
      _steps(found.where(precision=p), metric, levels[net])
      for p in (MEDIAN, MEAN)
    )
    logs = ({s: math.log2(v) for s, v in by_seed.items()} for by_seed in steps)
    cells[_name(net)] = pairs.pair(*logs, diverged="exclude")
  return verdicts.verdict(
    "better",
    cells,
    claim=claim,
    statement=f"{MEDIAN} reaches a fixed quality in fewer steps than {MEAN}, at"
    " the same learning rate",
    scale=runs.scale,
    unit="doublings of steps",
    margin=_SAME_SPEED,
    better="lower",
  )


def _table(nets, compare, metric, levels) -> Table:
  rows = []
  for net, found in nets.items():
    for (precision,), some in found.group("precision").items():
      values = [v for v in _points(some, f"test/{metric}").values() if v == v]
      mean = estimates.mean(values) if values else None
      low, high = mean.interval() if mean else (math.nan, math.nan)
      row = [*net, precision, next(iter(some)).record["num_params"], len(some)]
      row += [mean.value if mean else math.nan, (high - low) / 2]
      if precision == FULL:
        row += [None, None, None]
      else:
        less = estimates.mean(compare(net, precision, FULL))
        row += [less.value, *less.interval()]
      level = f"valid/{metric}", levels[net]
      steps = [v for run in some if (v := run.steps_to(*level)) is not None]
      logs = estimates.mean([math.log(v) for v in steps]) if steps else None
      row += [_POINTS * levels[net], logs and math.exp(logs.value), len(steps)]
      rows.append(row)
  title = "Test quality with 95 % intervals, and steps to the level"
  return Table("quality", title, _COLUMNS, [[*map(_finite, r)] for r in rows])


def _finite(value):
  is_bad = isinstance(value, float) and not math.isfinite(value)
  return None if is_bad else value


def _wins(differences: Mapping[str, estimates.Estimate]) -> Table:
  wins = proportions.wins(differences, better="higher", tie=_TIE)
  columns = [
    Column(MEDIAN, f"{MEDIAN} is better"),
    Column(MEAN, f"{MEAN} is better"),
    Column("ties"),
    Column("p", "p-value", digits=3),
  ]
  row = [wins.first, wins.second, wins.ties, wins.p_value]
  return Table(
    "wins", "Nets for which each measure is better, on average", columns, [row]
  )


def _figure(nets, metric) -> Figure:
  series = []
  precisions = {p for runs in nets.values() for p in runs.choices("precision")}
  for precision in sorted(precisions):
    x, y, low, high = [], [], [], []
    for net, runs in nets.items():
      if precision not in runs.choices("precision"):
        continue
      some = runs.where(precision=precision)
      values = [v for v in _points(some, f"test/{metric}").values() if v == v]
      if len(values) < 2:
        continue
      mean = estimates.mean(values)
      x.append(f"{net[0]} {net[1]} {net[2]}")
      y.append(mean.value)
      low.append(mean.interval()[0])
      high.append(mean.interval()[1])
    series.append(Series(precision, x, y, low, high))
  return Figure(
    "quality",
    "Test quality by data, net and epochs",
    "bars",
    Axis("Data, net and epochs"),
    Axis(f"Test {metric}, points"),
    series,
  )
