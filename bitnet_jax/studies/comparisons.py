"""Comparisons of two kinds of runs in several cells, by seed."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from bitnet_jax.analysis import estimates, pairs, verdicts
from bitnet_jax.studies import summaries
from bitnet_jax.studies.findings import Axis, Figure, Series, Table
from bitnet_jax.studies.runs import At, Runs

Cells = Mapping[str, pairs.Pairs]


def compare(
  runs: Runs,
  first: Mapping[str, Any],
  second: Mapping[str, Any],
  *,
  keys: Sequence[str],
  metric: str,
  diverged: pairs.Diverged,
  factor: float = 1.0,
  at: At = "final",
) -> dict[str, pairs.Pairs]:
  """Returns pairs of runs for each combination of values of some keys.

  Args:
    runs: runs whose cells have ``keys``.
    first: values in the cells of the first of each pair, such as
      {"precision": "b158"}.
    second: likewise, of the second.
    keys: of the cells; with them, ``first`` and ``second`` each leave one run a
      seed.
    metric: see ``Run.value``.
    diverged: what a diverged run counts as, before ``factor``; see ``pair``.
    factor: of all values, such as 100 for percent.
    at: see ``Run.value``.

  Returns:
    Pairs by cell ("model=sgc, data=cora"), without cells that lack one side.
  """
  if not isinstance(diverged, str):
    diverged = factor * diverged
  found = {}
  for cell, several in runs.group(*keys).items():
    sides = [_chosen(several, side) for side in (first, second)]
    if all(map(len, sides)):
      values = (side.by_seed(metric, at) for side in sides)
      scaled = [{seed: factor * x for seed, x in v.items()} for v in values]
      name = ", ".join(map("{}={}".format, keys, cell))
      found[name] = pairs.pair(*scaled, diverged=diverged)
  return found


def averages(
  runs: Runs,
  firsts: Sequence[Mapping[str, Any]],
  second: Mapping[str, Any],
  *,
  by: str,
  **how: Any,
) -> dict[str, pairs.Pairs]:
  """Returns the mean over cells of each seed, by a key and the first side.

  Args:
    runs: see ``compare``, like the next two.
    firsts: the first sides to compare with the second.
    second: the second side.
    by: a key of the cells, over whose values is not averaged.
    **how: further arguments of ``compare``.
  """
  found = {}
  for value, first in itertools.product(runs.choices(by), firsts):
    cells = compare(runs.where(**{by: value}), first, second, **how)
    name = ", ".join(f"{k}={v}" for k, v in {by: value, **first}.items())
    found[name] = pairs.average(cells.values())
  return found


def wider(
  runs: Runs, first: str, second: str, times: float, **how: Any
) -> dict[str, pairs.Pairs]:
  """Returns pairs of a precision and another of several times the width.

  Args:
    runs: with the keys "data", "precision" and "width" in their cells.
    first: a precision.
    second: another one.
    times: its width, in those of ``first``.
    **how: further arguments of ``compare``.
  """
  found = {}
  for width in runs.choices("width"):
    one = {"precision": first, "width": width}
    other = {"precision": second, "width": times * width}
    for name, pair in compare(runs, one, other, keys=("data",), **how).items():
      found[f"{name}, width={width}"] = pair
  return found


def _chosen(runs: Runs, cell: Mapping[str, Any]) -> Runs:
  """Returns the runs with these values in their cells, which may be none."""
  wanted = cell.items()
  chosen = [run for run in runs if wanted <= run.cell.items()]
  return Runs(chosen, runs.scale)


def no_worse(
  runs: Runs, cells: Cells, *, margin: float, **about: Any
) -> verdicts.Verdict:
  """Decides whether scores are lower by less than a margin, in points.

  Args:
    runs: the study's, for the scale.
    cells: pairs of scores in percent.
    margin: the largest loss that does not matter.
    **about: further arguments of ``verdict``, such as "claim".
  """
  return verdicts.verdict(
    "no worse",
    cells,
    scale=runs.scale,
    unit="points",
    better="higher",
    margin=margin,
    **about,
  )


def shown(
  runs: Runs, compared: Mapping[str, Cells], *, keys: Sequence[str], metric: str
) -> tuple[Table, Figure]:
  """Returns a table of a score, and bars of its differences from float32.

  Args:
    runs: runs whose cells have ``keys`` and "precision".
    compared: pairs of a precision and float32, by precision and cell.
    keys: of the cells.
    metric: the score.
  """
  columns = (*keys, "precision")
  table = summaries.table("scores", metric, runs, columns, metric, digits=4)
  label = f"{metric} minus float32 (points)"
  return table, figure("cost", "What ternary layers cost", compared, label)


def figure(
  name: str,
  title: str,
  compared: Mapping[str, Cells],
  label: str,
) -> Figure:
  """Returns bars of mean differences with their 95 % intervals.

  Args:
    name: of the figure.
    title: for readers.
    compared: by what the legend shows, pairs by cell, with at least two seeds.
    label: of the differences.
  """
  series = []
  for key, cells in compared.items():
    means = {cell: estimates.mean(found) for cell, found in cells.items()}
    ends = [found.interval() for found in means.values()]
    middle = [found.value for found in means.values()]
    low, high = zip(*ends, strict=True)
    series.append(Series(key, [*means], middle, low=low, high=high))
  return Figure(name, title, "bars", Axis(""), Axis(label), series)
