"""Success rates and wins: values of SciPy, sizes and coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from bitnet_jax.analysis import estimates, proportions
from tests.analysis.simulation import coverage, paired, tolerance


@pytest.mark.parametrize("successes", [0, 3, 10])
def test_rate_has_the_interval_of_wilson(successes):
  found = proportions.rate(successes, 10)
  expected = stats.binomtest(successes, 10).proportion_ci(method="wilson")
  assert found.value == successes / 10
  assert found.interval() == pytest.approx((expected.low, expected.high))
  assert found.p_above(found.interval()[0] + 1e-12) >= 0.024


def test_rate_of_no_runs_is_unknown():
  assert proportions.rate(0, 0).interval() == (0, 1)
  with pytest.raises(ValueError, match="3 successes in 2 runs"):
    proportions.rate(3, 2)


def test_interval_of_a_paired_difference_agrees_with_newcombe():
  # Table II of the paper, first column: 36 both, 12 and 2, none, of 50.
  first = np.repeat([1.0, 1.0, 0.0], [36, 12, 2])
  second = np.repeat([1.0, 0.0, 1.0], [36, 12, 2])
  low, high = proportions.difference(paired(first, second)).interval()
  assert (round(low, 4), round(high, 4)) == (0.0569, 0.3404)


def _successes(rng, count, a, b):
  """Returns outcomes of two sides that depend on a shared difficulty."""
  difficulty = rng.random(count)
  mixed = np.where(
    rng.random((2, count)) < 0.5, difficulty, rng.random((2, count))
  )
  return paired(*(mixed < [[a], [b]]).astype(float))


@pytest.mark.parametrize(("a", "b"), [(0.8, 0.5), (0.95, 0.9), (0.5, 0.5)])
def test_intervals_of_a_paired_difference_cover(a, b):
  rng = np.random.default_rng(4)
  found = [
    proportions.difference(_successes(rng, 20, a, b)) for _ in range(500)
  ]
  assert coverage(found, a - b) > 0.95 - tolerance(0.95, 500)


def test_success_in_all_runs_is_not_certainty():
  found = proportions.difference(paired(np.ones(10), np.ones(10)))
  low, high = found.interval()
  assert low == -high and 0.2 < high < 0.4
  assert found.p_above(-0.5) < 0.025 < found.p_above(-0.1)


def test_mcnemar_keeps_its_size_and_finds_effects():
  rng = np.random.default_rng(5)
  null = [
    proportions.mcnemar(_successes(rng, 30, 0.7, 0.7)) for _ in range(300)
  ]
  effect = [
    proportions.mcnemar(_successes(rng, 30, 0.9, 0.4)) for _ in range(100)
  ]
  assert np.mean(np.array(null) <= 0.05) < 0.05 + tolerance(0.05, 300)
  assert np.mean(np.array(effect) <= 0.05) > 0.8


def test_values_that_are_no_success_or_failure_are_errors():
  with pytest.raises(ValueError, match=r"values 0 and 1, but there is 0\.5"):
    proportions.mcnemar(paired(np.array([1.0, 0.5]), np.ones(2)))


def test_wins_are_counted_in_the_direction_of_the_metric():
  values = np.array([0.3, -0.2, 0.0, 0.01, math.inf])
  found = proportions.wins(values, better="higher", tie=0.05)
  assert (found.first, found.second, found.ties) == (2, 1, 2)
  assert found.p_value == stats.binomtest(2, 3).pvalue
  found = proportions.wins(values, better="lower")
  assert (found.first, found.second, found.ties) == (1, 3, 1)
  assert found.rate.value == 0.25
  with pytest.raises(ValueError, match="better is 'more'"):
    proportions.wins(values, better="more")


def test_wins_over_cells_count_their_means():
  cells = {
    "a": paired(np.array([1.0, 2.0]), np.array([0.0, 4.0])),
    "b": estimates.mean([0.5, 0.7]),
    "c": 0.0,
  }
  found = proportions.wins(cells, better="higher")
  assert (found.first, found.second, found.ties) == (1, 1, 1)
  assert found.p_value == 1


def test_sign_test_keeps_its_size():
  values = np.random.default_rng(6).normal(size=(300, 15))
  found = [proportions.wins(v, better="higher").p_value <= 0.05 for v in values]
  assert np.mean(found) < 0.05 + tolerance(0.05, 300)
  shifted = [
    proportions.wins(v + 1, better="higher").p_value <= 0.05 for v in values
  ]
  assert np.mean(shifted) > 0.8
