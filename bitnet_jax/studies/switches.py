"""Findings about a switch from full precision to ternary weights."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitnet_jax.analysis import pairs, verdicts
from bitnet_jax.studies import summaries
from bitnet_jax.studies.findings import Axis, Column, Figure, Findings, Table
from bitnet_jax.studies.runs import Runs

_SPIKE, _RECOVERY = "switch/spike", "switch/recovery_steps"
_PHASE_FRACTION = 0.1  # of all steps
_PLAIN = {"optimizer": "keep", "phase": "none"}
_RESET, _PHASED = _PLAIN | {"optimizer": "reset"}, _PLAIN | {"phase": "tanh"}
_COLUMNS = (
  Column("start", "switch at", "%"),
  Column("optimizer"),
  Column("phase", "phase-in"),
  Column("loss", "final loss", digits=3),
  Column("low", "from", digits=3),
  Column("high", "to (95 %)", digits=3),
  Column("spike", digits=3),
  Column("recovery", "steps until recovery", digits=0),
  Column("recovered", "runs that recovered", "%", 0),
)


def overrides(cell: Mapping[str, Any], total_steps: int) -> dict[str, Any]:
  """Returns values of config keys for "start", "optimizer", "phase" of a cell.

  Args:
    cell: "start" is a percentage of the steps, of which 100 never switches;
      "phase" is "none", or "tanh" over a tenth of the steps.
    total_steps: number of steps of the run.
  """
  start = cell["start"] * total_steps // 100
  phased = cell["phase"] != "none"
  return {
    # A start at the last step would evaluate the ternary net.
    "quant.phase_in.start": start + (cell["start"] == 100),
    "quant.phase_in.optimizer": cell["optimizer"],
    "quant.phase_in.shape": "tanh",
    "quant.phase_in.steps": int(_PHASE_FRACTION * total_steps) if phased else 0,
  }


def findings(
  runs: Runs,
  *,
  metric: str,
  worst: float,
  margin: float = 0.02,
  spike_margin: float = 0.05,
) -> Findings:
  """Judges claims 15 and 16.

  Claim 15: a switch ends with a lower loss than ternary weights from the start,
  at the earliest switch and on average over all. Claim 16, on average over all
  switches: with the optimizer kept, and with phase-in, the loss spikes less,
  and ends equal within the margin.

  Args:
    runs: with the keys "start", "optimizer" and "phase" in their cells, see
      ``overrides``.
    metric: the loss.
    worst: the loss of a run that diverged, and its spike.
    margin: a difference of the final loss that matters.
    spike_margin: a difference of the spike that matters.
  """
  starts = [start for start in runs.choices("start") if 0 < start < 100]

  def cells(first, second, name=metric, start=None):
    return {
      f"switch at {at} %": pairs.pair(
        runs.where(start=at, **first).by_seed(name),
        runs.where(start=at if start is None else start, **second).by_seed(
          name
        ),
        diverged=worst,
      )
      for at in starts
    }

  after = cells(_PLAIN, _PLAIN, start=0)
  name, first = next(iter(after.items()))
  judge = functools.partial(verdicts.verdict, scale=runs.scale, unit="nats")
  ends = {"claim": 15, "comparisons": 2, "margin": margin, "better": "lower"}
  text = "ends with a lower loss than ternary weights throughout"
  judged = [
    judge("better", {name: first}, statement=f"A {name} {text}", **ends),
    judge("better", after, statement=f"A switch at any time {text}", **ends),
  ]
  for what, kind, other in (
    ("The optimizer's state kept", _PLAIN, _RESET),
    ("Phase-in", _PHASED, _PLAIN),
  ):
    about: dict[str, Any] = {
      "claim": 16,
      "statement": f"{what} lowers the spike",
    }
    about |= {"margin": spike_margin, "better": "lower", "comparisons": 4}
    judged.append(judge("better", cells(kind, other, _SPIKE), **about))
    text = f"{what} does not change the final loss"
    about = {"claim": 16, "statement": text, "margin": margin}
    judged.append(judge("equal", cells(kind, other), comparisons=4, **about))
  keys = ("start", "optimizer", "phase")
  rows = []
  for cell, found in runs.group(*keys).items():
    loss = summaries.mean(found.by_seed(metric))
    spike = summaries.mean(found.by_seed(_SPIKE))[0]
    back = found.by_seed(_RECOVERY)
    fraction = np.mean(np.isfinite([*back.values()]))
    recovered = math.nan if math.isnan(spike) else 100 * float(fraction)
    rows.append([*cell, *loss, spike, summaries.mean(back)[0], recovered])
  table = Table("switches", "By when and how a run switches", _COLUMNS, rows)
  return Findings(judged, [table], _figures(runs, metric))


def _figures(runs: Runs, metric: str) -> list[Figure]:
  """Returns final loss and spike by the percentage of steps before."""
  found = []
  for name, label in ((metric, "Final loss"), (_SPIKE, "Spike of the loss")):
    series = [
      summaries.series(
        f"optimizer {optimizer}, phase-in {phase}",
        summaries.curve(part, "start", name),
      )
      for (optimizer, phase), part in runs.group("optimizer", "phase").items()
    ]
    axes = Axis("Steps before the switch (%)"), Axis(f"{label} (nats)")
    short = name.rpartition("/")[2]
    found.append(Figure(short, label, "lines", *axes, series))
  return found
