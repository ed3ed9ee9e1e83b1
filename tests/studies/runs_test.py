"""What findings read of runs."""

import math

import numpy as np
import pytest

from bitnet_jax.studies import Runs
from tests.studies.conftest import make_record

ACCURACY = "test/accuracy"


def make(**entries):
  found = [
    make_record({"hidden": hidden, "precision": precision}, seed)
    for precision in ("b158", "float32")
    for hidden in (16, 2)
    for seed in (2, 0, 1)
  ]
  found += [make_record({"hidden": 2, "precision": "bfloat16"}, 3, diverged=5)]
  found += [make_record({"hidden": 2, "precision": "b158"}, 9, scale="ci")]
  return Runs.of(found, "cpu")


def test_runs_are_those_of_a_scale_in_the_order_of_cells_and_seeds():
  runs = make()
  assert len(runs) == 13
  assert runs.scale == "cpu"
  assert [run.cell["hidden"] for run in runs][:8] == [2] * 7 + [16]
  assert [run.seed for run in runs][:3] == [0, 1, 2]
  assert runs.choices("hidden") == [2, 16]
  assert runs.choices("precision") == ["b158", "bfloat16", "float32"]


def test_where_takes_runs_by_value_or_by_several():
  runs = make()
  assert len(runs.where(hidden=2, precision="b158")) == 3
  assert len(runs.where(precision=("b158", "float32"))) == 12
  assert [*runs.group("precision", "hidden")][:2] == [("b158", 2), ("b158", 16)]
  with pytest.raises(
    ValueError, match="hidden is 3, which is not one of: 2, 16"
  ):
    runs.where(hidden=3)
  with pytest.raises(ValueError, match="did you mean 'hidden'"):
    runs.where(hiden=2)


def test_values_by_seed_and_pairs():
  runs = make()
  first = runs.where(hidden=2, precision="b158")
  second = runs.where(hidden=16, precision="b158")
  assert first.by_seed(ACCURACY) == {0: 0.5, 1: 0.6, 2: 0.7}
  a, b, seeds = first.pair(second, ACCURACY)
  np.testing.assert_array_equal(a, b)
  assert seeds == [0, 1, 2]
  with pytest.raises(ValueError, match="several runs have one seed"):
    runs.where(hidden=2).by_seed(ACCURACY)


def test_diverged_runs_count():
  diverged = make().where(precision="bfloat16")
  (value,) = diverged.by_seed(ACCURACY).values()
  assert math.isnan(value)
  assert diverged.values(ACCURACY, diverged=0.1) == [0.1]
  assert [run.diverged for run in diverged] == [True]


def test_value_at_an_epoch_and_steps_to_a_level():
  (run,) = Runs.of([make_record({}, 1)], "cpu")
  assert run.value(ACCURACY, at=4.9) == 0.25
  assert run.value(ACCURACY, at=10) == 0.6
  assert math.isnan(run.value(ACCURACY, at="best"))
  assert math.isnan(run.value("test/other"))
  assert run.steps_to(ACCURACY, 0.5) == 100
  assert run.steps_to(ACCURACY, 0.9) is None
  assert run.steps_to(ACCURACY, 0.3, mode="min") == 50
  assert run.config["model"]["depth"] == 1
  assert run.config["optim"]["b2"] == 0.999
  with pytest.raises(ValueError, match="at is 'last'"):
    run.value(ACCURACY, at="last")


def test_best_value_of_a_key_avoids_divergence():
  found = [make_record({"rate": 1.0}, seed) for seed in (8, 9)]
  found += [make_record({"rate": 0.1}, seed) for seed in (0, 1)]
  assert Runs.of(found, "cpu").best("rate", ACCURACY) == 1.0
  assert Runs.of(found, "cpu").best("rate", ACCURACY, "min") == 0.1
  found[0] = make_record({"rate": 1.0}, 8, diverged=3)
  assert Runs.of(found, "cpu").best("rate", ACCURACY) == 0.1
