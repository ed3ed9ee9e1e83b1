"""Verdicts on when and how to switch to ternary weights."""

import itertools

import pytest

from bitnet_jax.studies import switches
from bitnet_jax.studies.runs import Runs
from tests.studies.simulated import noise, run


def simulated(gain, reset, abrupt):
  """Runs whose loss falls by ``gain`` with a switch, with parts of a spike."""
  kinds = itertools.product(("keep", "reset"), ("none", "tanh"))
  cells = [
    {"start": start, "optimizer": optimizer, "phase": phase}
    for optimizer, phase in kinds
    for start in (0, 20, 60, 100)
  ]
  return Runs(
    run(
      seed,
      cell=cell,
      valid_loss=2 + noise(seed) - (gain if cell["start"] else 0),
      switch_spike=reset * (cell["optimizer"] == "reset")
      + abrupt * (cell["phase"] == "none")
      + noise(3 * seed + cell["start"]),
    )
    for cell in cells
    for seed in range(6)
  )


def outcomes(found):
  return [(v.claim, v.outcome) for v in found.verdicts]


def test_gain_and_smaller_spikes_are_found():
  found = switches.findings(
    simulated(0.1, 0.3, 0.3), metric="valid/loss", worst=5
  )
  assert outcomes(found) == [(c, "holds") for c in (15, 15, 16, 16, 16, 16)]
  found.data(study="s", title="t", scale="cpu", records=1)


def test_no_gain_and_equal_spikes_do_not_hold():
  found = switches.findings(simulated(0, 0, 0), metric="valid/loss", worst=5)
  verdicts = [outcome for _, outcome in outcomes(found)]
  # What remains is that final losses are equal.
  assert [i for i, v in enumerate(verdicts) if v == "holds"] == [3, 5]


@pytest.mark.parametrize(
  ("start", "step"), [(0, 0), (20, 120), (80, 480), (100, 601)]
)
def test_start_is_a_percentage_of_the_steps(start, step):
  cell = {"start": start, "optimizer": "reset", "phase": "tanh"}
  found = switches.overrides(cell, 600)
  assert found["quant.phase_in.start"] == step
  assert found["quant.phase_in.steps"] == 60
  assert found["quant.phase_in.optimizer"] == "reset"
