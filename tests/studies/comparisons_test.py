"""Pairs of two kinds of runs, and verdicts about scores."""

import numpy as np
import pytest

from bitnet_jax.studies import comparisons
from bitnet_jax.studies.runs import Runs
from tests.studies.simulated import noise, run

HOW = {"keys": ("data",), "metric": "test/accuracy", "diverged": 0.1}
FULL, MEAN = {"precision": "float32"}, {"precision": "b158"}


def make_runs(loss=0.02, seeds=6, broken=None):
  """Ternary nets lose accuracy on "a" only; ``broken`` is a diverged seed."""
  return Runs(
    run(
      seed,
      cell={"data": data, "precision": precision, "width": width},
      diverged=3 if (seed, precision, data) == (broken, "b158", "a") else None,
      test_accuracy=0.9
      + noise(seed)
      + (width == 16) * 0.05
      - (precision == "b158" and data == "a") * loss,
    )
    for data in ("a", "b")
    for precision in ("float32", "b158")
    for width in (8, 16)
    for seed in range(seeds)
  )


def test_runs_with_the_same_seed_are_compared_in_each_cell():
  found = comparisons.compare(
    make_runs().where(width=8), MEAN, FULL, **HOW, factor=100
  )
  assert [*found] == ["data=a", "data=b"]
  np.testing.assert_allclose(found["data=a"].differences, -2)
  np.testing.assert_allclose(found["data=b"].differences, 0, atol=1e-9)


def test_a_diverged_run_counts_as_the_given_value():
  runs = make_runs(broken=4).where(width=8)
  pairs = comparisons.compare(runs, MEAN, FULL, **HOW, factor=100)["data=a"]
  assert pairs.first[4] == 10


def test_cells_without_one_side_are_left_out():
  kept = [
    run
    for run in make_runs().where(width=8)
    if run.cell["data"] == "b" or run.cell["precision"] == "float32"
  ]
  found = comparisons.compare(Runs(kept), MEAN, FULL, **HOW)
  assert [*found] == ["data=b"]


def test_a_key_that_still_distinguishes_runs_is_an_error():
  with pytest.raises(ValueError, match="several runs have one seed"):
    comparisons.compare(make_runs(), MEAN, FULL, **HOW)


def test_averages_are_those_of_each_seed_over_the_cells():
  runs = make_runs()
  how = {**HOW, "keys": ("data", "width"), "factor": 100}
  found = comparisons.averages(runs, [MEAN], FULL, by="width", **how)
  assert [*found] == ["width=8, precision=b158", "width=16, precision=b158"]
  np.testing.assert_allclose(found["width=8, precision=b158"].differences, -1)


def test_nets_of_several_widths_are_compared_with_wider_ones():
  how = {name: HOW[name] for name in ("metric", "diverged")}
  found = comparisons.wider(make_runs(), "float32", "b158", 2, **how)
  assert [*found] == ["data=a, width=8", "data=b, width=8"]
  np.testing.assert_allclose(found["data=b, width=8"].differences, -0.05)


@pytest.mark.parametrize(
  ("loss", "outcome"), [(0.005, "holds"), (0.02, "does not hold")]
)
def test_a_loss_is_judged_by_the_margin_in_points(loss, outcome):
  runs = make_runs(loss).where(width=8)
  cells = comparisons.compare(runs, MEAN, FULL, **HOW, factor=100)
  found = comparisons.no_worse(
    runs, {"a": cells["data=a"]}, margin=1.0, claim=10, statement="a claim"
  )
  assert found.outcome == outcome
  assert found.unit == "points"


def test_figure_shows_differences_with_their_intervals():
  runs = make_runs().where(width=8)
  lost = {"b158": comparisons.compare(runs, MEAN, FULL, **HOW, factor=100)}
  table, figure = comparisons.shown(
    runs, lost, keys=("data",), metric="test/accuracy"
  )
  (series,) = figure.data()["series"]
  assert series["x"] == ["data=a", "data=b"]
  assert series["y"][0] == pytest.approx(-2)
  assert series["low"][0] <= series["y"][0] <= series["high"][0]
  assert table.data()["rows"][0][:2] == ["a", "b158"]
