"""A whole sweep in one program against as many runs of their own."""

import time

import numpy as np
import pytest

from bitnet_jax.programs.sweeping import together
from bitnet_jax.train import runner
from tests.train.conftest import CONFIGS
from tests.train.sweep.group_test import run_alone

# Above 0.01, training is chaotic: rounding decides where a member ends.
RATES = tuple(10 ** (-4 + 2 * i / 7) for i in range(8))
SEEDS = range(4)
FIRST = 10  # losses that are compared


def losses(lines):
  return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["float", "b158"])
def test_sweep_of_digits_equals_its_runs_in_less_time(tmp_path, recipe):
  fixed = {"quant.recipe": recipe, "log_every": 1, "mesh.data": 1}
  configs = {
    f"{rate:.1e}-{seed}": runner.load_config(
      str(CONFIGS / "digits_mlp.py"),
      fixed | {"optim.learning_rate": rate, "seed": seed},
    )
    for rate in RATES
    for seed in SEEDS
  }
  start = time.perf_counter()
  cases = [
    together.Case(name=name, config=config) for name, config in configs.items()
  ]
  outcomes = together.train(cases)
  swept = time.perf_counter() - start
  alone = {
    name: run_alone(config, tmp_path / name) for name, config in configs.items()
  }
  own = time.perf_counter() - start - swept
  for outcome in outcomes:
    _, lines = alone[outcome.name]
    np.testing.assert_allclose(
      losses(outcome.curves)[:FIRST], losses(lines)[:FIRST], rtol=1e-5
    )
  gaps = [
    abs(
      outcome.result["metrics"]["valid/accuracy"]
      - alone[outcome.name][0]["metrics"]["valid/accuracy"]
    )
    for outcome in outcomes
  ]
  close = np.mean(np.array(gaps) <= 1e-3)
  print(
    f"{recipe}: {len(gaps)} members in {swept:.1f} s, one by one {own:.1f} s, "
    f"ratio {swept / own:.2f}; {close:.0%} end within 0.001"
  )
  if recipe == "float":
    assert close >= 0.75
  assert swept <= 0.8 * own
