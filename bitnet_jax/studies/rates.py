"""Findings about learning rates, weight decays and their schedules."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitnet_jax.analysis import pairs, sensitivity, verdicts
from bitnet_jax.studies import summaries
from bitnet_jax.studies.findings import Axis, Column, Figure, Findings, Table
from bitnet_jax.studies.runs import Runs

_KEYS = ("family", "precision", "schedule", "decay")
_COLUMNS = (
  *map(Column, _KEYS),
  Column("band", "usable band", "decades", 2),
  Column("low", "from", digits=2),
  Column("high", "to (95 %)", digits=2),
  Column("best", "best rate"),
  Column("rises", "runs with a sudden rise", "%", 0),
  Column("diverged", "runs that diverged", "%", 0),
)

# By kind of the two-stage schedule: the peak of the second stage over that of
# the first, and whether weight decay ends with the first.
STAGES: Mapping[str, tuple[float, bool]] = {
  "no change": (1.0, False),
  "rate drop": (2 / 3, False),
  "decay removal": (1.0, True),
  "both changes": (2 / 3, True),
}


def overrides(cell: Mapping[str, Any]) -> dict[str, Any]:
  """Returns values of config keys for "schedule", "rate" and "decay" of a cell.

  A schedule in ``STAGES`` is a linear decay in two stages.
  """
  rate, decay, schedule = cell["rate"], cell["decay"], cell["schedule"]
  found = {"optim.learning_rate": rate, "optim.weight_decay": decay}
  if schedule not in STAGES:
    return found | {"optim.schedule": schedule}
  factor, removed = STAGES[schedule]
  return found | {
    "optim.schedule": "two_stage",
    "optim.second_learning_rate": factor * rate,
    "optim.second_weight_decay": 0.0 if removed else decay,
  }


def findings(
  runs: Runs,
  *,
  metric: str,
  near: float = 0.1,
  band_margin: float = 0.25,
  margin: float = 0.02,
  worst: float = 5.5,
) -> Findings:
  """Judges claims 2, 3 and 17 on grids of learning rates and weight decays.

  Claim 2: the usable band of the median is narrower than that of the mean,
  without weight decay, with the schedule "cosine". Claim 3: from no weight
  decay to the largest, the loss of float32 rises more than that of b158, each
  at its best rate without decay, by the mean over seeds. Cells of both claims
  are the families. Claim 17: each change at the start of the second stage, and
  both, lower the loss; these are its cells, and the loss is averaged over
  rates.

  Args:
    runs: with the keys "family", "precision", "schedule", "decay" and "rate" in
      their cells.
    metric: the loss.
    near: a rate is usable if its loss lies at most this far above the best
      one's; a larger rise within a run is sudden.
    band_margin: a difference of bands that matters, in decades.
    margin: a difference of the loss that matters.
    worst: the loss of a run that diverged: log(256), of a guess of a byte.
  """
  one_stage = [s for s in runs.choices("schedule") if s not in STAGES]
  grids = runs.where(schedule=one_stage).group(*_KEYS)
  bands = {
    key: sensitivity.bands(summaries.curve(found, "rate", metric), near)
    for key, found in grids.items()
  }
  judge = functools.partial(verdicts.verdict, scale=runs.scale, better="higher")
  narrower, robust = {}, {}
  for family in runs.choices("family"):
    mean, median = (
      bands[family, name, "cosine", 0.0] for name in ("b158", "b158_median")
    )
    narrower[family] = pairs.pair(mean, median, diverged="exclude")
    rises = [
      _rise(
        runs.where(family=family, precision=name, schedule="cosine"), metric
      )
      for name in ("float32", "b158")
    ]
    robust[family] = pairs.pair(*rises, diverged=worst)
  text = "The mean's usable band of learning rates is wider than the median's"
  about = {"statement": text, "margin": band_margin, "unit": "decades"}
  judged = [judge("better", narrower, claim=2, **about)]
  text = "Weight decay raises the loss of float32 more than that of b158"
  about = {"statement": text, "margin": margin, "unit": "nats"}
  judged.append(judge("better", robust, claim=3, **about))
  staged = runs.where(schedule=(*STAGES,))
  judged.append(_stages(staged, metric, margin, worst))
  rows = [
    [*key, *summaries.mean(bands[key]), *_troubles(found, metric, near)]
    for key, found in grids.items()
  ]
  tables = [
    Table("bands", "Usable learning rates", _COLUMNS, rows),
    summaries.table(
      "stages", "Loss of two stages", staged, ("schedule", "rate"), metric
    ),
  ]
  return Findings(judged, tables, _figures(runs, metric))


def _stages(
  runs: Runs, metric: str, margin: float, worst: float
) -> verdicts.Verdict:
  """Returns the verdict on claim 17."""
  plain, *changes = STAGES
  cells = {}
  for change in changes:
    by_rate = [
      pairs.pair(
        *(found.where(schedule=s).by_seed(metric) for s in (change, plain)),
        diverged=worst,
      )
      for found in runs.group("rate").values()
    ]
    cells[change] = pairs.average(by_rate)
  return verdicts.verdict(
    "better",
    cells,
    claim=17,
    statement="A rate drop, decay removal and both changes at the start of a"
    " second stage each lower the final loss",
    scale=runs.scale,
    unit="nats",
    margin=margin,
    better="lower",
    combine="all",
  )


def _rise(runs: Runs, metric: str) -> dict[int, float]:
  """Returns by seed how far the largest decay raises the loss.

  The rate is the best one without decay.
  """
  rate = runs.where(decay=0.0).best("rate", metric, mode="min")
  runs = runs.where(rate=rate)
  before = runs.where(decay=0.0).by_seed(metric)
  after = runs.where(decay=max(runs.choices("decay"))).by_seed(metric)
  return {seed: after[seed] - before[seed] for seed in before}


def _troubles(runs: Runs, metric: str, near: float) -> tuple[float, ...]:
  """Returns the best rate, and percentages of sudden rises and divergence."""
  rises = [sensitivity.largest_rise(r.curve(metric)[1]) > near for r in runs]
  diverged = [run.diverged for run in runs]
  best = runs.best("rate", metric, mode="min")
  return best, 100 * float(np.mean(rises)), 100 * float(np.mean(diverged))


def _figures(runs: Runs, metric: str) -> list[Figure]:
  """Returns the loss by rate, and as heat maps by rate and decay."""
  rate = Axis("Learning rate", log=True)
  found = []
  for (family,), cells in runs.group("family").items():
    plain = cells.where(decay=0.0).group("precision", "schedule")
    lines = [
      summaries.series(", ".join(key), summaries.curve(part, "rate", metric))
      for key, part in plain.items()
    ]
    title = f"Loss by learning rate, {family}"
    loss = Axis(f"{metric} (nats)")
    name = f"rates_{family}"
    found.append(Figure(name, title, "lines", rate, loss, lines))
    maps = cells.where(schedule="cosine").group("precision")
    for (precision,), part in maps.items():
      cell = part.group("rate", "decay").items()
      series = summaries.heat(metric, {k: v.by_seed(metric) for k, v in cell})
      title = f"Loss by learning rate and weight decay, {family}, {precision}"
      name = f"decay_{family}_{precision}"
      axes = rate, Axis("Weight decay")
      found.append(Figure(name, title, "heat", *axes, [series]))
  return found
