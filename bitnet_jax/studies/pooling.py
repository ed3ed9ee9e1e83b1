"""Two recipes compared over the runs of several studies."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bitnet_jax.analysis import pairs
from bitnet_jax.studies import records
from bitnet_jax.studies.runs import Run

# Metrics by which runs are compared, the first that both runs have; whether
# higher values are better, and the largest difference that does not matter.
METRICS: Mapping[str, tuple[int, float]] = {
  "test/accuracy": (1, 0.01),
  "valid/accuracy": (1, 0.01),
  "test/map50": (1, 0.01),
  "valid/map50": (1, 0.01),
  "test/loss": (-1, 0.02),
  "valid/loss": (-1, 0.02),
}
# Tasks that are about the loss, although they have an accuracy of tokens.
_LOSSES = ("causal_lm", "masked_lm", "span_corruption", "translation")
_NETS = ("net", "family", "model")  # keys of cells that name the network
MOST = 10.0  # margins; a difference counts at most that much


@dataclasses.dataclass(frozen=True)
class Match:
  """Two runs that differ in one value of their cell only.

  Attributes:
    study: their study.
    setting: study, model and data set.
    source: the data source of their config.
    seed: their seed.
    rate: their learning rate.
    metric: the metric that is compared; "" if only one of them diverged.
    advantage: of the first, in margins of the metric, at most ``MOST``. A
      diverged run is worse than any other by that much.
  """

  study: str
  setting: str
  source: str
  seed: int
  rate: float
  metric: str
  advantage: float


def matches(runs: Iterable[Run], first: str, second: str) -> list[Match]:
  """Returns all pairs of runs whose cells differ in these values only.

  Args:
    runs: of one or more studies.
    first: a value of a cell, such as "b158_median".
    second: the value in its place in the cell of the other run.
  """
  known = {_key(run, run.cell): run for run in runs}
  found = []
  for run in known.values():
    swapped = {k: second if v == first else v for k, v in run.cell.items()}
    other = known.get(_key(run, swapped))
    if other is not None and other is not run:
      match = _match(run, other)
      found += [match] if match is not None else []
  return found


def by_setting(
  found: Iterable[Match], fewest: int = 1
) -> dict[str, pairs.Pairs]:
  """Returns the advantage of the first side, in margins, by setting.

  The cells of a setting, such as its rates, are averaged by seed. The second
  value of each pair is 0.

  Args:
    found: pairs of runs.
    fewest: number of seeds; settings with fewer are left out.
  """
  settings: dict[str, dict[int, list[float]]] = {}
  for match in found:
    seeds = settings.setdefault(match.setting, {})
    seeds.setdefault(match.seed, []).append(match.advantage)
  return {
    setting: pairs.Pairs(
      tuple(sorted(seeds)),
      np.array([np.mean(seeds[seed]) for seed in sorted(seeds)]),
      np.zeros(len(seeds)),
    )
    for setting, seeds in sorted(settings.items())
    if len(seeds) >= fewest
  }


def win_rate(found: Iterable[Match], tie: float = 0.0) -> float:
  """Returns the fraction of pairs that the first side wins.

  A difference of at most ``tie`` margins is half a win.
  """
  values = np.array([match.advantage for match in found])
  return float(np.mean((values > tie) + 0.5 * (np.abs(values) <= tie)))


def gain_of_choosing(sample: pairs.Pairs) -> float:
  """Returns what choosing the better side gains over always the second.

  One half of the seeds chooses, and the other half says what the choice gains;
  then the halves change places.

  Raises:
    ValueError: for a single seed.
  """
  values = sample.differences
  if len(values) < 2:
    raise ValueError("a choice needs at least 2 seeds, but there is 1")
  one, other = float(values[::2].mean()), float(values[1::2].mean())
  return ((other if one > 0 else 0.0) + (one if other > 0 else 0.0)) / 2


def _key(run: Run, cell: Mapping[str, Any]) -> str:
  record = run.record
  return json.dumps([record["study"], cell, run.seed], sort_keys=True)


def _match(run: Run, other: Run) -> Match | None:
  """Returns two runs as a match; ``None`` if there is nothing to compare."""
  rate = float(_config(run, "optim", "learning_rate"))
  # A run at the rate 0 measures initial weights, whose quality is chance.
  if rate == 0 or (run.diverged and other.diverged):
    return None
  metric, advantage = "", MOST * (int(other.diverged) - int(run.diverged))
  config = run.record["config"]
  task, model = config["task"]["name"], config["model"]["name"]
  if not advantage:
    shared = _shared(run, other, task)
    if shared is None:
      return None
    metric = shared
    sign, margin = METRICS[metric]
    difference = run.value(metric) - other.value(metric)
    advantage = float(np.clip(sign * difference / margin, -MOST, MOST))
  source = f"{_config(run, 'data', 'source')}"
  # Of the cell where it names them: two data sets may have files of one name.
  data = run.cell.get("data", source.rpartition(":")[2].partition(".")[0])
  net = next((run.cell[key] for key in _NETS if key in run.cell), model)
  return Match(
    study=run.record["study"],
    setting=f"{run.record['study']}, {net}, {data}",
    source=source,
    seed=run.seed,
    rate=rate,
    metric=metric,
    advantage=advantage,
  )


def _shared(run: Run, other: Run, task: str) -> str | None:
  for metric in METRICS:
    if task in _LOSSES and not metric.endswith("/loss"):
      continue
    if all(math.isfinite(r.value(metric)) for r in (run, other)):
      return metric
  return None


def _config(run: Run, group: str, key: str) -> Any:
  """Returns a value of a config that has only what its base lacks."""
  config = run.record["config"]
  if key in config.get(group, {}):
    return config[group][key]
  return _base(config["task"]["name"], config["model"]["name"])[group][key]


@functools.cache
def _base(task: str, model: str) -> dict[str, Any]:
  return records.expand({"task": {"name": task}, "model": {"name": model}})
