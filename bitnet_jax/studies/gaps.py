"""Findings about regularization: the gap between training and validation."""

import functools
import math
from collections.abc import Callable

import numpy as np

from bitnet_jax.analysis import pairs, verdicts
from bitnet_jax.studies import summaries
from bitnet_jax.studies.findings import Axis, Column, Figure, Findings, Table
from bitnet_jax.studies.runs import Run, Runs

TRAIN, VALID = "train/loss", "valid/loss"
_KEYS = ("family", "precision", "extra")
_LEARNED = 0.01  # nats; a quotient by less says nothing
_NEWEST = 5  # logged training losses that are averaged
_DIGITS = {"train": 3, "valid": 3, "gap": 3, "ratio": 2, "best": 3}
_MEASURES: dict[str, Callable[[Run], float]] = {
  "train": lambda run: float(np.mean(run.curve(TRAIN)[1][-_NEWEST:])),
  "valid": lambda run: run.value(VALID),
  "gap": lambda run: _MEASURES["valid"](run) - _MEASURES["train"](run),
  "ratio": lambda run: _ratio(run.value(VALID), _MEASURES["train"](run)),
  "best": lambda run: float(np.min(run.curve(VALID)[1])),
}
_LABELS = {
  "train": "training loss at the end",
  "valid": "validation loss at the end",
  "gap": "validation minus training",
  "ratio": "validation over training",
  "best": "least validation loss",
}


def _ratio(valid: float, train: float) -> float:
  """Returns the quotient, NaN if the net has learned all examples by heart."""
  return valid / train if train >= _LEARNED else math.nan


def by_seed(runs: Runs, measure: str) -> dict[int, float]:
  """Returns a measure of each run by seed, NaN if it diverged.

  Args:
    runs: of one cell.
    measure: "train", the mean of the last recorded training losses; "valid", at
      the end; "gap" and "ratio" of both, the ratio NaN for a training loss of
      almost 0; or "best", the least validation loss.
  """
  compute = _MEASURES[measure]
  return {run.seed: math.nan if run.diverged else compute(run) for run in runs}


def findings(
  runs: Runs, *, worst: float, gap_margin: float, margin: float
) -> Findings:
  """Judges claim 14, in each family.

  At the end, the gap of b158 is smaller than that of float32, and its
  validation loss is lower. At its least validation loss, b158 is no worse than
  float32 with dropout.

  Args:
    runs: with the keys "family", "precision" and "extra" in their cells, the
      last one "none", "dropout" or "decay".
    worst: the loss and the gap of a run that diverged.
    gap_margin: a difference of the gap that matters.
    margin: a difference of the loss that matters.
  """

  def compare(measure, extra):
    cells = {}
    for (family,), found in runs.group("family").items():
      ternary = by_seed(found.where(precision="b158"), measure)
      full = found.where(precision="float32", extra=extra)
      other = by_seed(full, measure)
      cells[family] = pairs.pair(ternary, other, diverged=worst)
    return cells

  about = {"claim": 14, "scale": runs.scale, "unit": "nats"}
  about |= {"better": "lower", "combine": "all", "comparisons": 3}
  judge = functools.partial(verdicts.verdict, **about)
  judged = [
    judge(
      "better",
      compare("gap", "none"),
      statement="b158 ends with a smaller gap than float32",
      margin=gap_margin,
    ),
    judge(
      "better",
      compare("valid", "none"),
      statement="b158 ends with a lower validation loss than float32",
      margin=margin,
    ),
    judge(
      "no worse",
      compare("best", "dropout"),
      statement="The least validation loss of b158 is no worse than that of"
      " float32 with dropout",
      margin=margin,
    ),
  ]
  columns = [Column(key) for key in _KEYS]
  columns += [Column(k, _LABELS[k], digits=d) for k, d in _DIGITS.items()]
  rows = [
    [*cell, *(summaries.mean(by_seed(found, name))[0] for name in _DIGITS)]
    for cell, found in runs.group(*_KEYS).items()
  ]
  table = Table("gaps", "Training and validation (nats)", columns, rows)
  return Findings(judged, [table], _figures(runs))


def _figures(runs: Runs) -> list[Figure]:
  """Returns the validation loss over training, by family."""
  figures = []
  for (family,), part in runs.group("family").items():
    series = [
      summaries.series(", ".join(cell), summaries.over_steps(found, VALID))
      for cell, found in part.group(*_KEYS[1:]).items()
    ]
    title = f"Validation loss over training, {family}"
    axes = Axis("Step"), Axis("Validation loss (nats)")
    figures.append(Figure(f"valid_{family}", title, "lines", *axes, series))
  return figures
