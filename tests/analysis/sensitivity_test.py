"""Usable bands of learning rates, and rises of a curve."""

import math

import numpy as np
import pytest

from bitnet_jax.analysis.sensitivity import bands, largest_rise, usable_decades


@pytest.mark.parametrize(
  ("losses", "decades"),
  [
    # Within 0.2 of the best, 1.0, for half of each segment beside it.
    ({1e-3: 1.4, 1e-2: 1.0, 1e-1: 1.4}, 1.0),
    ({1e-3: 1.1, 1e-2: 1.0, 1e-1: 1.2}, 2.0),
    ({1e-3: 1.0, 1e-2: 3.0, 1e-1: 1.0}, 0.2),
    ({1e-3: 1.0, 1e-2: math.inf, 1e-1: 1.0}, 0.0),
    ({1e-3: 1.0, 1e-2: 1.2, 1e-1: math.nan}, 1.0),
    ({1e-3: math.nan, 1e-2: math.nan}, 0.0),
  ],
)
def test_band_matches_values_worked_by_hand(losses, decades):
  np.testing.assert_allclose(usable_decades(losses, 0.2), decades, rtol=1e-12)


def test_band_does_not_depend_on_the_order_and_unit_of_the_rates():
  losses = {1e-3: 1.4, 1e-2: 1.0, 1e-1: 1.3}
  expected = usable_decades(losses, 0.2)
  shuffled = {7 * rate: losses[rate] for rate in (1e-2, 1e-1, 1e-3)}
  np.testing.assert_allclose(usable_decades(shuffled, 0.2), expected)


def test_finer_grid_of_the_same_line_gives_the_same_band():
  coarse = {1e-4: 2.0, 1e-2: 1.0, 1e0: 4.0}
  fine = coarse | {1e-3: 1.5, 1e-1: 2.5}
  np.testing.assert_allclose(
    usable_decades(fine, 0.3), usable_decades(coarse, 0.3)
  )


@pytest.mark.parametrize("losses", [{}, {0.1: 1.0}, {0.0: 1.0, 0.1: 1.0}])
def test_band_needs_two_positive_rates(losses):
  with pytest.raises(ValueError, match="at least two"):
    usable_decades(losses, 0.1)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan])
def test_band_needs_a_positive_margin(margin):
  with pytest.raises(ValueError, match="margin is"):
    usable_decades({0.1: 1.0, 0.2: 1.0}, margin)


@pytest.mark.parametrize(
  ("values", "rise"),
  [([], 0), ([3, 2, 1], 0), ([3, 1, 2, 1.5], 1), ([1, 2, 0, 0.5], 1)],
)
def test_rise_is_measured_from_the_least_value_before(values, rise):
  assert largest_rise(values) == rise


def test_bands_are_those_of_each_seed_with_all_rates():
  curve = {0.01: {3: 1.0, 4: 2.0}, 0.1: {4: 2.0, 3: 1.4}, 1.0: {3: 1.0}}
  assert bands(curve, 0.2) == {3: pytest.approx(1.0)}
