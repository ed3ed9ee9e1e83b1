"""Weights of signal and noise inputs, and verdicts about them."""

import numpy as np
import pytest

from bitnet_jax.studies import Runs, noise
from bitnet_jax.train import runner
from tests.studies.conftest import make_record

ABOUT = {"claim": 8, "scale": "cpu"}


def test_weights_of_noise_inputs_are_counted_by_their_codes():
  kernel = np.array([[1.0, -1.0], [0.9, 0.01], [0.02, 0.9], [0.01, 0.02]])
  variables = {"params": {"layer_0": {"kernel": kernel.astype(np.float32)}}}
  config = runner.load_config("xor_mlp", {"quant.recipe": "b158"})
  found = noise.measure(config, variables, signals=2)
  assert found == {"used/signal": 0.75, "used/noise": 0.25}
  config = runner.load_config("xor_mlp", {"quant.recipe": "float"})
  assert noise.measure(config, variables, signals=2) == {}


def make(mean, median):
  """Returns runs with these fractions of noise weights that are not zero."""
  found = []
  for precision, used in (("b158", mean), ("b158_median", median)):
    for hidden in (8, 16):
      for seed in range(10):
        values = {"used/noise": used + 0.002 * (seed % 3), "used/signal": 0.8}
        cell = {"hidden": hidden, "precision": precision}
        found.append(make_record(cell, seed, metrics=values))
  return noise.used(Runs.of(found, "cpu"), "hidden")


@pytest.mark.parametrize(
  ("mean", "median", "outcomes"),
  [
    (0.02, 0.3, ["holds", "holds"]),
    (0.3, 0.31, ["does not hold", "equivalent within the margin"]),
    (0.3, 0.1, ["does not hold", "does not hold"]),
  ],
)
def test_noise_inputs_that_are_ignored_are_found(mean, median, outcomes):
  found = make(mean, median)
  verdicts = noise.judge(found, "b158", "b158_median", **ABOUT)
  assert [verdict.outcome for verdict in verdicts] == outcomes
  names = [series.name for series in noise.figure(found, "T").series]
  assert names[:2] == ["b158/signal", "b158/noise"]
