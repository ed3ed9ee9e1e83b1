"""Findings about ternary nets of equal size: quality, and speed of learning."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bitnet_jax.analysis import estimates, pairs, proportions, verdicts
from bitnet_jax.studies import comparisons
from bitnet_jax.studies.case import PRECISIONS, Case
from bitnet_jax.studies.findings import Column, Findings, Table
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
  Column("difference", "less float32", "points", 2),
  Column("low", "from", "points", 2),
  Column("high", "to (95 %)", "points", 2),
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
      overrides: dict[str, Any] = {
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
  claims: Sequence[int | str] = (4, 5, 6),
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
    claims: of the three kinds of verdicts.
  """
  used = sorted({margins[data] for data in runs.choices("data")})
  compared = {
    precision: _compare(runs, precision, FULL, f"test/{metric}", chance)
    for precision in runs.choices("precision")
    if precision != FULL
  }
  measures = _compare(runs, MEDIAN, MEAN, f"test/{metric}", chance)
  levels = _levels(runs, f"valid/{metric}")
  return Findings(
    verdicts=[
      *(
        _match(runs, compared[MEAN], margins, margin, len(used), claims[0])
        for margin in used
      ),
      _speed(runs, f"valid/{metric}", levels, claims[1]),
      verdicts.verdict(
        "equal",
        measures,
        claim=claims[2],
        statement=f"Neither {MEDIAN} nor {MEAN} is better overall",
        scale=runs.scale,
        unit="points",
        margin=equal,
      ),
    ],
    tables=[_table(runs, compared, metric, levels), _wins(measures)],
    figures=[
      comparisons.figure(
        "difference",
        "Test quality less that of float32",
        compared,
        f"test/{metric} minus float32 (points)",
      )
    ],
  )


def _compare(runs, first, second, metric, chance) -> dict[str, pairs.Pairs]:
  """Returns pairs in points by net."""
  found = {}
  for data in runs.choices("data"):
    found |= comparisons.compare(
      runs.where(data=data),
      {"precision": first},
      {"precision": second},
      keys=KEYS,
      metric=metric,
      diverged=chance[data] / _POINTS,
      factor=_POINTS,
    )
  return found


def _name(net: Key) -> str:
  return ", ".join(map("{}={}".format, KEYS, net))


def _levels(runs, metric) -> dict[Key, float]:
  return {
    key: float(np.nanmean(full.values(metric, at=key[2] / 2)))
    for key, full in runs.where(precision=FULL).group(*KEYS).items()
  }


def _match(runs, compared, margins, margin, count, claim) -> verdicts.Verdict:
  data = [d for d in runs.choices("data") if margins[d] == margin]
  some = runs.where(data=data).group(*KEYS)
  return comparisons.no_worse(
    runs,
    {name: compared[name] for name in map(_name, some)},
    margin=margin,
    claim=claim,
    statement=f"Ternary nets ({MEAN}) match or pass {FULL} of equal size on"
    f" {', '.join(data)}",
    combine="all",
    comparisons=count,
  )


def _speed(runs, metric, levels, claim) -> verdicts.Verdict:
  cells = {}
  for net, found in runs.group(*KEYS).items():
    last = max(run.record["step"] for run in found)  # Others diverged.
    steps = (
      {
        run.seed: math.log2(run.steps_to(metric, levels[net]) or last)
        for run in found.where(precision=precision)
      }
      for precision in (MEDIAN, MEAN)
    )
    cells[_name(net)] = pairs.pair(*steps, diverged="exclude")
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


def _table(runs, compared, metric, levels) -> Table:
  rows = []
  for (*key, precision), some in runs.group(*KEYS, "precision").items():
    net = tuple(key)
    values = some.values(f"test/{metric}")
    values = _POINTS * values[np.isfinite(values)]
    row = [*net, precision, next(iter(some)).record["num_params"], len(some)]
    row.append(values.mean() if len(values) else None)
    if precision == FULL:
      row += [None, None, None]
    else:
      less = estimates.mean(compared[precision][_name(net)])
      row += [less.value, *less.interval()]
    level = levels[net]
    steps = [run.steps_to(f"valid/{metric}", level) for run in some]
    logs = [math.log(step) for step in steps if step is not None]
    mean = math.exp(math.fsum(logs) / len(logs)) if logs else None
    rows.append([*row, _POINTS * level, mean, len(logs)])
  title = "Test quality, and the geometric mean of the steps to the level"
  return Table("quality", title, _COLUMNS, rows)


def _wins(measures: Mapping[str, pairs.Pairs]) -> Table:
  means = {name: estimates.mean(found) for name, found in measures.items()}
  wins = proportions.wins(means, better="higher", tie=_TIE)
  columns = [
    Column(MEDIAN, f"{MEDIAN} is better"),
    Column(MEAN, f"{MEAN} is better"),
    Column("ties"),
    Column("p", "p-value", digits=3),
  ]
  row = [wins.first, wins.second, wins.ties, wins.p_value]
  title = "Nets for which each measure is better, on average"
  return Table("wins", title, columns, [row])
