"""Verdicts on learning rates, weight decays and schedules."""

import numpy as np
import pytest

from bitnet_jax.studies import rates
from tests.studies.simulated import runs

GRID = (1e-3, 1e-2, 1e-1)
# Nats a decade from the best rate, and the rise at the largest decay.
KINDS = {"float32": (0.1, 0.5), "b158": (0.1, 0.1), "b158_median": (0.4, 0.1)}


def cells(kinds=KINDS, stages=(0.0, 0.1, 0.2, 0.3)):
  for precision, (slope, rise) in kinds.items():
    for rate in GRID:
      for decay in (0.0, 0.1):
        cell = {"family": "cnn", "precision": precision, "schedule": "cosine"}
        loss = 1 + slope * abs(np.log10(rate) + 2) + rise * decay / 0.1
        yield {**cell, "rate": rate, "decay": decay}, loss
  for schedule, gain in zip(rates.STAGES, stages, strict=True):
    cell = {"family": "cnn", "precision": "b158", "schedule": schedule}
    yield {**cell, "rate": 0.01, "decay": 0.1}, 1 - gain


def outcomes(found):
  return [(v.claim, v.outcome) for v in found.verdicts]


def test_wider_band_of_the_mean_and_its_robustness_are_found():
  found = rates.findings(runs(cells()), metric="valid/loss")
  assert outcomes(found) == [(c, "holds") for c in (2, 3, 17)]
  assert found.verdicts[1].effect == pytest.approx(0.4)
  bands = {tuple(row[:2]): row[4] for row in found.tables[0].rows if not row[3]}
  assert bands["cnn", "b158"] == pytest.approx(2, abs=0.1)
  assert bands["cnn", "b158_median"] == pytest.approx(0.5, abs=0.1)
  found.data(study="s", title="t", scale="cpu", records=1)


def test_equal_precisions_and_useless_stages_do_not_hold():
  kinds = dict.fromkeys(KINDS, (0.2, 0.1))
  found = rates.findings(runs(cells(kinds, (0.0,) * 4)), metric="valid/loss")
  assert "holds" not in [outcome for _, outcome in outcomes(found)]


@pytest.mark.parametrize(
  ("schedule", "second"),
  [
    ("no change", (0.03, 0.1)),
    ("rate drop", (0.02, 0.1)),
    ("decay removal", (0.03, 0.0)),
    ("both changes", (0.02, 0.0)),
  ],
)
def test_stages_set_the_keys_of_the_second_one(schedule, second):
  cell = {"schedule": schedule, "rate": 0.03, "decay": 0.1}
  found = rates.overrides(cell)
  assert found["optim.schedule"] == "two_stage"
  assert found["optim.second_learning_rate"] == pytest.approx(second[0])
  assert found["optim.second_weight_decay"] == second[1]
