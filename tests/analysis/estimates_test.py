"""Estimates: values by hand, and intervals that cover in simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from bitnet_jax.analysis import estimates, pairs
from tests.analysis.simulation import coverage, paired, tolerance


def test_mean_has_the_interval_and_the_test_of_scipy():
  values = np.array([0.3, 0.1, 0.4, 0.1, 0.5])
  found = estimates.mean(values)
  expected = stats.ttest_1samp(values, 0.2)
  assert found.value == pytest.approx(0.28) and found.seeds == 5
  low, high = expected.confidence_interval(0.95)
  assert found.interval() == pytest.approx((low, high))
  both = 2 * min(found.p_above(0.2), found.p_below(0.2))
  assert both == pytest.approx(expected.pvalue)
  assert estimates.standard_error(values) == pytest.approx(stats.sem(values))


@pytest.mark.parametrize("count", [5, 10])
@pytest.mark.parametrize("kind", ["normal", "gamma", "accuracy"])
def test_t_intervals_cover(kind, count):
  rng = np.random.default_rng(count)
  repeats, truth = 1500, {"normal": 0.0, "gamma": 2.0, "accuracy": 0.02}[kind]
  values = {
    "normal": lambda size: rng.normal(size=size),
    "gamma": lambda size: rng.gamma(2, size=size),
    "accuracy": lambda size: (
      rng.binomial(500, 0.9, size) / 500 - rng.binomial(500, 0.88, size) / 500
    ),
  }[kind]((repeats, count))
  rate = coverage(map(estimates.mean, values), truth)
  # Skewed values cost some of it: the mean and its error are correlated.
  lowest = 0.91 if kind == "gamma" else 0.95
  assert rate > lowest - tolerance(lowest, repeats)
  assert rate < 0.95 + tolerance(0.95, repeats)


@pytest.mark.slow
def test_bootstrap_covers_too_rarely_at_five_values_and_rightly_at_fifty():
  rng = np.random.default_rng(0)
  rates = {}
  for count in (5, 50):
    values = rng.normal(size=(500, count))
    found = [estimates.bootstrap(row, resamples=999) for row in values]
    rates[count] = coverage(found, 0)
  # The reason why verdicts use Student's interval.
  assert rates[5] < 0.88
  assert rates[50] > 0.95 - tolerance(0.95, 500)


def test_bootstrap_is_the_bca_interval_of_scipy_with_a_fixed_seed():
  values = np.random.default_rng(1).gamma(1.0, size=30)
  found = estimates.bootstrap(values, np.median, resamples=999, seed=3)
  again = estimates.bootstrap(values, np.median, resamples=999, seed=3)
  expected = stats.bootstrap(
    (values,),
    np.median,
    n_resamples=999,
    batch=1000,
    random_state=np.random.default_rng(3),
  ).confidence_interval
  assert found.interval() == again.interval()
  assert found.interval() == pytest.approx((expected.low, expected.high))
  assert found.value == np.median(values)
  low, high = found.interval(0.9)
  assert (
    found.p_above(low - 1e-9) < 0.051 and found.p_below(high + 1e-9) < 0.051
  )


def test_paired_samples_are_drawn_together():
  first = np.random.default_rng(0).normal(10, 1, size=25)

  def ratio(a, b, axis):
    return a.mean(axis=axis) / b.mean(axis=axis)

  low, high = estimates.bootstrap((first, 2 * first), ratio).interval()
  assert low == pytest.approx(0.5) and high == pytest.approx(0.5)


def test_values_without_variance_have_an_interval_without_width():
  for make in (estimates.mean, estimates.bootstrap):
    found = make(np.full(6, 0.1))
    assert found.interval() == pytest.approx((0.1, 0.1))
    assert found.p_above(0) == 0 and found.p_above(0.2) == 1
    assert found.notes == ("all values are equal",)


def test_a_single_value_excludes_nothing():
  found = estimates.mean([0.5])
  assert found.interval() == (-math.inf, math.inf)
  assert found.p_above(0) == found.p_below(0) == 0.5
  with pytest.raises(ValueError, match="at least 2 values, but there is 1"):
    estimates.bootstrap([0.5])


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [0.1, math.inf]])
def test_values_that_have_no_mean_are_errors(values):
  with pytest.raises(ValueError, match=r"at least one value|finite values"):
    estimates.mean(values)


def test_geometric_mean_is_a_mean_of_logarithms():
  found = estimates.geometric_mean([1.0, 2.0, 4.0])
  low, high = estimates.mean([0.0, 1.0, 2.0]).interval()
  assert found.value == pytest.approx(2)
  assert found.interval() == pytest.approx((2**low, 2**high))
  with pytest.raises(ValueError, match="positive values"):
    estimates.geometric_mean([1.0, 0.0])


@pytest.mark.parametrize("sign", [1, -1])
def test_intervals_of_a_ratio_cover(sign):
  rng = np.random.default_rng(2)
  base = rng.normal(5, 1, size=(1000, 6))
  first = 1.5 * base + rng.normal(0, 1, size=base.shape)
  found = [
    estimates.ratio_of_means(paired(sign * a, sign * b))
    for a, b in zip(first, base, strict=True)
  ]
  rate = coverage(found, 1.5)
  assert rate == pytest.approx(0.95, abs=tolerance(0.95, 1000))
  for estimate in found[:20]:
    low, high = estimate.interval()
    assert estimate.p_above(low) == pytest.approx(0.025)
    assert estimate.p_below(high) == pytest.approx(0.025)


def test_a_ratio_is_below_infinity():
  found = estimates.ratio_of_means(paired(np.ones(3), np.arange(1.0, 4.0)))
  assert (found.p_below(math.inf), found.p_above(math.inf)) == (0, 1)


def test_ratio_to_what_may_be_zero_has_no_bounds():
  second = np.array([1.0, -1.0, 2.0, -1.5, 0.2])
  found = estimates.ratio_of_means(paired(np.ones(5), second))
  assert found.interval() == (-math.inf, math.inf)
  # Though the first mean is certainly above 0.74 times the second.
  for bound in (-1e9, 0.3, 0.74, 1e9):
    assert 0.025 < found.p_above(bound) < 0.975
    assert 0.025 < found.p_below(bound) < 0.975
  with pytest.raises(ValueError, match="mean is not 0"):
    estimates.ratio_of_means(paired(np.ones(2), np.array([1.0, -1.0])))


def test_slopes_over_cells_cover_though_the_cells_share_their_seeds():
  rng = np.random.default_rng(3)
  widths, found = (8, 16, 32, 64), []
  for _ in range(300):
    base = rng.normal(size=6)
    tilt = 0.1 * rng.normal(size=6)
    cells = {
      w: dict(enumerate(base + (0.2 + tilt) * i + 0.05 * rng.normal(size=6)))
      for i, w in enumerate(widths)
    }
    found.append(estimates.slope(cells, diverged="exclude", log=True))
  assert coverage(found, 0.2) == pytest.approx(0.95, abs=tolerance(0.95, 300))


def test_slope_leaves_out_a_seed_that_diverged_and_says_so():
  cells = {1: {0: 1.0, 1: 1.0, 2: 1.0}, 2: {0: 2.0, 1: 4.0, 2: None}}
  found = estimates.slope(cells, diverged="exclude")
  assert found.value == pytest.approx(2) and found.seeds == 2
  assert found.notes == ("left out, a run diverged: seed 2",)
  with pytest.raises(ValueError, match="at least 2 cells"):
    estimates.slope({1: {0: 1.0}}, diverged="exclude")


def test_jackknife_of_a_mean_is_its_t_interval():
  values = np.array([1.0, 3.0, 4.0, 8.0])
  found = estimates.jackknife(lambda rows: values[rows].mean(), 4)
  assert found.interval() == pytest.approx(estimates.mean(values).interval())
  log = estimates.jackknife(
    lambda rows: math.exp(values[rows].mean()), 4, log=True
  )
  assert np.log(log.interval()) == pytest.approx(found.interval())
  with pytest.raises(ValueError, match="at least 2 seeds"):
    estimates.jackknife(lambda rows: 0.0, 1)


def test_pairs_give_the_mean_of_their_differences_and_their_notes():
  found = estimates.mean(
    pairs.pair({0: 2.0, 1: None, 2: 4.0}, {0: 1.0, 1: 1.0, 2: 1.0}, diverged=0)
  )
  assert found.value == pytest.approx(1)
  assert found.notes == ("a diverged run counts as 0: seed 1",)
