"""Intervals and paired tests, against SciPy's."""

import pytest
from scipy import stats

from bitnet_jax.programs.comparing import intervals

A = {0: 0.91, 1: 0.93, 2: 0.94, 3: 0.90}
B = {0: 0.92, 1: 0.95, 2: 0.95, 7: 0.1}


def test_interval_is_that_of_student():
  found = intervals.estimate([1.0, 2.0, 4.0])
  low, high = stats.t.interval(
    0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0])
  )
  assert found[:4] == pytest.approx((7 / 3, low, high, 3))


def test_paired_test_is_that_of_scipy():
  found = intervals.paired(A, B)
  expected = stats.ttest_rel([A[i] for i in range(3)], [B[i] for i in range(3)])
  low, high = expected.confidence_interval(0.95)
  assert found == pytest.approx((-0.04 / 3, low, high, 3, expected.pvalue))


def test_what_is_not_defined_is_none():
  assert intervals.estimate([0.5]) == (0.5, None, None, 1, None)
  assert intervals.paired({0: 1.0}, {1: 1.0}) is None
  # Equal differences have no deviation to test against.
  assert intervals.paired({0: 1.0, 1: 2.0}, {0: 0.5, 1: 1.5}) == (
    0.5,
    0.5,
    0.5,
    2,
    None,
  )
