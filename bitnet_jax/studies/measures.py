"""Findings about two measures over the runs of all studies: claims 6 and 11."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bitnet_jax.analysis import (
  estimates,
  pairs,
  proportions,
  significance,
  verdicts,
)
from bitnet_jax.studies import pooling
from bitnet_jax.studies.findings import (
  Axis,
  Column,
  Figure,
  Findings,
  Series,
  Table,
)
from bitnet_jax.studies.pooling import Match
from bitnet_jax.studies.runs import Runs

MEDIAN, MEAN = "b158_median", "b158"
GENERATED = ("embedded:xor", "embedded:graphs")
TIE = 0.1  # margins
_ONE_EACH = "its seeds are settings, each of which counts once"


def findings(runs: Runs) -> Findings:
  """Returns which measure wins, what choosing gains, and tables of wins.

  Args:
    runs: of all studies. A setting with fewer than 5 seeds is left out, but
      not at the scale "ci".
  """
  fewest = 1 if runs.scale == "ci" else verdicts.MIN_SEEDS
  found = pooling.matches(runs, MEDIAN, MEAN)
  settings = pooling.by_setting(found, fewest)
  found = [match for match in found if match.setting in settings]
  return Findings(
    verdicts=_verdicts(found, settings, runs.scale),
    tables=[
      _settings(found, settings),
      _groups(found, "studies", "By study", "study"),
      _groups(found, "rates", "By learning rate", "rate"),
    ],
    figures=[_figure(settings)],
  )


def _verdicts(
  found: list[Match], settings: Mapping[str, pairs.Pairs], scale: str
) -> list[verdicts.Verdict]:
  """Returns the two verdicts on claim 6, and that on claim 11."""
  by_name = _grouped(found, "setting")
  wins = [pooling.win_rate(by_name[name], TIE) for name in settings]
  gains = [pooling.gain_of_choosing(sample) for sample in settings.values()]
  over, gained = (
    dataclasses.replace(estimates.mean(values), notes=(_ONE_EACH,))
    for values in (wins, gains)
  )
  real = {match.setting for match in found if match.source not in GENERATED}
  each: dict[str, Any] = {"claim": 6, "scale": scale, "comparisons": 2}
  return [
    verdicts.verdict(
      "in range",
      over,
      statement="the median wins a third to two thirds of the pairs",
      bounds=(1 / 3, 2 / 3),
      unit="of pairs",
      **each,
    ),
    verdicts.verdict(
      "better",
      gained,
      statement="choosing between mean and median by other seeds pays",
      margin=1.0,
      better="higher",
      unit="margins",
      **each,
    ),
    verdicts.verdict(
      "no worse",
      {name: s for name, s in settings.items() if name in real} or settings,
      claim=11,
      statement="the median is no worse than the mean on most real data",
      margin=1.0,
      better="higher",
      combine="most",
      unit="margins",
      scale=scale,
    ),
  ]


def _settings(found: list[Match], settings: Mapping[str, pairs.Pairs]) -> Table:
  """Returns the advantage of the median in each setting."""
  by_name = _grouped(found, "setting")
  means = {name: estimates.mean(sample) for name, sample in settings.items()}
  p_values = significance.holm(
    [2 * min(e.p_above(0), e.p_below(0)) for e in means.values()]
  )
  rows = []
  for (name, estimate), p in zip(means.items(), p_values, strict=True):
    low, high = estimate.interval()
    matches = by_name[name]
    percent = 100 * pooling.win_rate(matches, TIE)
    metric = max({m.metric for m in matches})
    row = [name, metric, estimate.seeds, len(matches), percent]
    rows.append([*row, estimate.value, low, high, p])
  columns = [
    Column("setting"),
    Column("metric"),
    Column("seeds"),
    *_COUNTS,
    Column("low", "from", "margins", 2),
    Column("high", "to", "margins", 2),
    Column("p_value", "p (Holm)", digits=3),
  ]
  title = "The median against the mean, by study, network and data set"
  return Table("settings", title, columns, rows)


_COUNTS = (
  Column("pairs"),
  Column("wins", "median wins", "%", 0),
  Column("advantage", "advantage of the median", "margins", 2),
)


def _groups(found: list[Match], name: str, title: str, key: str) -> Table:
  """Returns win counts over the settings by an attribute of the pairs."""
  rows = []
  for value, matches in _grouped(found, key).items():
    settings = pooling.by_setting(matches)
    means = {k: float(s.differences.mean()) for k, s in settings.items()}
    wins = proportions.wins(means, better="higher", tie=TIE)
    percent = 100 * pooling.win_rate(matches, TIE)
    row = [value, len(matches), percent, np.mean([*means.values()])]
    rows.append([*row, wins.first, wins.second, wins.ties, wins.p_value])
  columns = [
    Column(key),
    *_COUNTS,
    Column("median_settings", "settings of the median"),
    Column("mean_settings", "of the mean"),
    Column("ties", "of neither"),
    Column("p_value", "p (signs)", digits=3),
  ]
  return Table(name, title, columns, rows)


def _figure(settings: Mapping[str, pairs.Pairs]) -> Figure:
  """Returns the sorted advantages of all settings."""
  means = [estimates.mean(sample) for sample in settings.values()]
  means.sort(key=lambda estimate: estimate.value)
  low, high = zip(*(estimate.interval() for estimate in means), strict=True)
  series = Series(
    MEDIAN,
    [*range(1, len(means) + 1)],
    [estimate.value for estimate in means],
    low,
    high,
  )
  return Figure(
    "advantages",
    "Advantage of the median in each setting, sorted",
    "points",
    Axis("setting"),
    Axis("margins"),
    [series],
  )


def _grouped(found: Iterable[Match], key: str) -> dict[Any, list[Match]]:
  """Returns matches by one of their attributes, in order."""
  groups: dict[Any, list[Match]] = {}
  for match in sorted(found, key=lambda match: getattr(match, key)):
    groups.setdefault(getattr(match, key), []).append(match)
  return groups
