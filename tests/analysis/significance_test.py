"""Tests against a margin, and Holm's correction, against simulation."""

import numpy as np
import pytest

from bitnet_jax.analysis import estimates, significance
from tests.analysis.simulation import runs, tolerance

ALPHA, MARGIN, REPEATS = 0.05, 0.01, 500


def test_holm_by_hand():
  found = significance.holm([0.01, 0.04, 0.03, 0.005])
  np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
  np.testing.assert_allclose(significance.holm([0.9, 0.6]), [1, 1])
  assert len(significance.holm([])) == 0


def test_holm_keeps_the_error_of_a_family_and_has_power():
  p = np.random.default_rng(0).random((2000, 6))
  p[:, 0] = 1e-4  # One of the claims is true.
  found = np.array([significance.holm(row) for row in p]) <= ALPHA
  assert found[:, 0].all()
  wrong = found[:, 1:].any(axis=1).mean()
  assert 0.03 < wrong < ALPHA + tolerance(ALPHA, 2000)
  assert (p[:, 1:] <= ALPHA).any(axis=1).mean() > 0.2  # Without it.


def rejected(effect, test, count=8, noise=0.004):
  rng = np.random.default_rng(1)
  sample = [runs(rng, count, effect, noise) for _ in range(REPEATS)]
  return np.mean([test(s) <= ALPHA for s in sample])


def test_equivalence_keeps_its_size_at_the_margin_and_has_power_within():
  def test(sample):
    return significance.tost(sample, MARGIN)

  for effect in (MARGIN, -MARGIN):
    size = rejected(effect, test)
    assert ALPHA / 2 < size < ALPHA + tolerance(ALPHA, REPEATS)
  assert rejected(0, test) > 0.9


@pytest.mark.parametrize(("better", "sign"), [("higher", 1), ("lower", -1)])
def test_non_inferiority_keeps_its_size_and_has_power(better, sign):
  def test(sample):
    return significance.non_inferiority(sample, MARGIN, better=better)

  size = rejected(-sign * MARGIN, test)
  assert ALPHA / 2 < size < ALPHA + tolerance(ALPHA, REPEATS)
  assert rejected(0, test) > 0.9
  assert rejected(sign * MARGIN, test) == 1


def test_equivalence_agrees_with_the_interval_of_90_percent():
  found = estimates.mean([0.001, 0.004, -0.002, 0.003, 0.001])
  p_value = significance.tost(found, MARGIN)
  _, high = found.interval(1 - 2 * p_value)
  assert high == pytest.approx(MARGIN)


def test_margins_must_be_positive():
  with pytest.raises(ValueError, match="margin is 0, but"):
    significance.tost([0.1, 0.2], 0)
