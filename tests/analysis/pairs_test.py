"""Pairs by seed: missing and diverged partners are left out or counted."""

import math

import numpy as np
import pytest

from bitnet_jax.analysis import pairs


def test_values_are_paired_by_seed_in_any_order():
  found = pairs.pair({2: 0.3, 0: 0.1}, {0: 1.0, 2: 3.0}, diverged="exclude")
  assert found.seeds == (0, 2) and found.notes == ()
  np.testing.assert_allclose(found.differences, [-0.9, -2.7])


def test_missing_and_diverged_partners_are_left_out_and_named():
  first = {0: 0.1, 1: None, 2: 0.2, 3: 0.3}
  second = {0: 0.1, 1: 0.1, 2: math.nan, 4: 0.3, 5: 0.4}
  found = pairs.pair(first, second, diverged="exclude")
  assert found.seeds == (0,)
  assert found.notes == (
    "left out, not run in each cell: seeds 3, 4, 5",
    "left out, a run diverged: seeds 1, 2",
  )


def test_diverged_runs_count_as_the_number_given():
  first, second = {0: None, 1: 0.2, 2: None}, {0: 0.9, 1: None, 2: None}
  found = pairs.pair(first, second, diverged=0.1)
  np.testing.assert_allclose(found.differences, [-0.8, 0.1, 0])
  assert found.notes == ("a diverged run counts as 0.1: seeds 0, 1, 2",)
  worst = pairs.pair(first, second, diverged=-math.inf)
  np.testing.assert_allclose(worst.differences, [-math.inf, math.inf, 0])


def test_infinite_values_are_values():
  found = pairs.pair({0: math.inf}, {0: 1.0}, diverged="exclude")
  assert found.differences == [math.inf]


@pytest.mark.parametrize(
  ("first", "message"),
  [
    ({}, "not run in each cell: seed 0"),
    ({0: None}, "a run diverged: seed 0"),
    ({1: 0.1}, "not run in each cell: seeds 0, 1"),
  ],
)
def test_no_pair_is_an_error_with_its_reason(first, message):
  with pytest.raises(ValueError, match=message):
    pairs.pair(first, {0: 0.1}, diverged="exclude")


def test_another_word_for_diverged_runs_is_an_error():
  with pytest.raises(ValueError, match="'drop', which is neither 'exclude'"):
    pairs.pair({0: 0.1}, {0: 0.1}, diverged="drop")


def test_average_over_cells_is_by_seed():
  one = pairs.pair(
    {0: 1.0, 1: 2.0, 2: None}, {0: 0.0, 1: 0.0, 2: 0.0}, diverged="exclude"
  )
  two = pairs.pair(
    {0: 3.0, 1: 5.0, 2: 1.0}, {0: 0.0, 1: 1.0, 2: 0.0}, diverged="exclude"
  )
  found = pairs.average([one, two])
  np.testing.assert_allclose(found.differences, [2, 3])
  assert found.notes == (
    "left out, a run diverged: seed 2",
    "left out, not run in each cell: seed 2",
  )
