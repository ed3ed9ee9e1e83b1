"""Verdicts on the gap between training and validation."""

import math

import pytest

from bitnet_jax.studies import gaps
from bitnet_jax.studies.runs import Runs
from tests.studies.simulated import noise, run

# Training loss, validation loss at the end, and at its least.
FLOAT = {
  ("float32", "none"): (0.2, 1.0, 0.6),
  ("float32", "dropout"): (0.4, 0.7, 0.6),
}
REGULAR = FLOAT | {("b158", "none"): (0.5, 0.6, 0.55)}
OVERFIT = FLOAT | {("b158", "none"): (0.1, 1.2, 0.9)}


def simulated(kinds):
  return Runs(
    run(
      seed,
      cell={"family": "cnn", "precision": precision, "extra": extra},
      valid_loss=end + noise(seed),
      curves={
        "step": list(range(8)),
        "train/loss": [3.0] * 3 + [train] * 5,
        "valid/loss": [2.0] * 6 + [least + noise(seed), end + noise(seed)],
      },
    )
    for (precision, extra), (train, end, least) in kinds.items()
    for seed in range(6)
  )


def judged(kinds):
  found = gaps.findings(
    simulated(kinds), worst=5.5, gap_margin=0.05, margin=0.02
  )
  found.data(study="s", title="t", scale="cpu", records=1)
  return found


def test_smaller_gap_and_lower_losses_are_found():
  found = judged(REGULAR)
  assert [v.outcome for v in found.verdicts] == ["holds"] * 3
  rows = {row[1]: row[2:] for row in found.tables[0].rows}
  assert rows["b158"][4] == pytest.approx(0.6 / 0.5, abs=0.01)


def test_net_that_overfits_more_contradicts_all():
  outcomes = [v.outcome for v in judged(OVERFIT).verdicts]
  assert outcomes == ["does not hold"] * 3


def test_run_that_diverged_has_no_measure():
  runs = Runs([run(3, diverged=7, cell={"family": "cnn", "precision": "b158"})])
  assert math.isnan(gaps.by_seed(runs, "gap")[3])
