"""Fractions of zeros of Gaussian weights, by depth, and verdicts."""

import numpy as np
import pytest

from bitnet_jax.studies import Runs, zeros
from tests.studies.conftest import make_record


@pytest.mark.parametrize(
  ("recipe", "expected"), [("b158", 0.310), ("b158_median", 0.264)]
)
def test_gaussian_weights_have_the_fraction_that_theory_gives(recipe, expected):
  found = zeros.gaussian(recipe, 3)
  assert len(found) == 3
  assert np.mean(found) == pytest.approx(expected, abs=2e-3)


def make(after):
  """Returns runs of three families with this fraction of zeros at the end."""
  found = []
  for family in ("mlp", "cnn", "vit"):
    for trained in (False, True):
      for seed in range(10):
        cell = {"family": family, "precision": "b158", "trained": trained}
        value = (after if trained else 0.295) + 0.001 * (seed % 4)
        layers = {
          "layer_0": {"zeros": 0.2, "size": 30},
          "layer_0/b": {"zeros": 0.6, "size": 10},
          "layer_1": {"zeros": 0.5, "size": 5},
          "head": {"zeros": 0.9, "size": 5},
        }
        curves = {"step": [1, 2], zeros.ZEROS: [0.3, value]}
        record = make_record(
          cell, seed, metrics={zeros.ZEROS: value}, layers=layers, curves=curves
        )
        found.append(record)
  return Runs.of(found, "cpu")


@pytest.mark.parametrize(
  ("after", "outcomes"),
  [
    (0.4, ["holds", "does not hold", "holds"]),
    (0.3, ["does not hold", "holds", "equivalent within the margin"]),
  ],
)
def test_fractions_of_trained_weights_are_judged(after, outcomes):
  verdicts = zeros.judge(make(after), claim=18, scale="cpu", comparisons=5)
  assert [v.outcome for v in verdicts] == ["holds", "holds", *outcomes]


def test_blocks_are_weighted_by_their_weights():
  runs = make(0.4).where(family="mlp", trained=True)
  found = zeros.by_depth(runs)
  assert {block: values[0] for block, values in found.items()} == {
    0: pytest.approx(0.3),
    1: 0.5,
  }
  assert [f.name for f in zeros.figures(make(0.4))] == ["steps", "depth"]
