"""Tests of the statistics of codes."""

import jax.numpy as jnp
import pytest

from bitnet_jax.ops.statistics import code_fractions, flip_rate

CODES = jnp.array([[-1, 0, 0], [1, 1, 1]], jnp.int8)


def test_shares_count_the_codes():
  shares = code_fractions(CODES)
  assert float(shares["negative_fraction"]) == pytest.approx(1 / 6)
  assert float(shares["zero_fraction"]) == pytest.approx(2 / 6)
  assert float(shares["positive_fraction"]) == pytest.approx(3 / 6)


def test_flip_rate_counts_the_codes_that_differ():
  assert float(flip_rate(CODES, CODES)) == 0
  assert float(flip_rate(CODES, CODES.at[0, 0].set(0))) == pytest.approx(1 / 6)
