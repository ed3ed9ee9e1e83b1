"""Means over seeds in tables and series."""

import math

import pytest

from bitnet_jax.studies import summaries
from bitnet_jax.studies.runs import Runs
from tests.studies.simulated import run


def test_mean_leaves_diverged_runs_out():
  value, low, high = summaries.mean({0: 1.0, 1: math.nan, 2: 3.0})
  assert value == 2.0
  assert low < 1.0
  assert high > 3.0


@pytest.mark.parametrize("values", [{}, {0: math.nan}])
def test_mean_of_nothing_is_nan(values):
  assert all(map(math.isnan, summaries.mean(values)))


def test_series_and_heat_maps_have_gaps_for_what_is_absent():
  series = summaries.series("b158", {8: {0: 1.0, 1: 1.0}, 16: {0: math.nan}})
  assert series.x == [8, 16]
  assert series.y[0] == 1.0
  assert math.isnan(series.y[1])
  heat = summaries.heat("loss", {(1, 0.1): {0: 5.0}, (2, 0.0): {0: 6.0}})
  assert (heat.x, heat.y) == ([1, 2], [0.0, 0.1])
  assert heat.z[0][1] == 6.0
  assert math.isnan(heat.z[0][0])


def test_table_counts_runs_and_those_that_diverged():
  cells = [{"width": width} for width in (8, 16)]
  found = [run(seed, cell=c, valid_loss=2.0) for c in cells for seed in (0, 1)]
  found.append(run(2, cell=cells[0], diverged=4))
  table = summaries.table("t", "T", Runs(found), ["width"], "valid/loss")
  assert [[row[0], row[1], *row[-2:]] for row in table.rows] == [
    [8, 2.0, 2, 1],
    [16, 2.0, 2, 0],
  ]
  assert len(table.columns) == len(table.rows[0])


def test_curve_over_steps_is_by_seed():
  curves = {"step": [1, 2], "valid/loss": [3.0, 4.0]}
  runs = Runs([run(7, curves=curves)])
  expected = {1.0: {7: 3.0}, 2.0: {7: 4.0}}
  assert summaries.over_steps(runs, "valid/loss") == expected
