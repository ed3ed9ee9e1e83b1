"""Tests of the scale measures."""

import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.quantizers.measures import MEASURES

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# Four columns, so that means are exact and medians have two middle values.
X = [[1.0, -2.0, 4.0, 1.0], [0.0, -8.0, 3.0, 1.0]]
BAD = (np.nan, np.inf, -np.inf)
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


@pytest.mark.parametrize(
  "measure, axes, expected",
  [
    ("absmean", (1,), [[2.0], [3.0]]),
    ("absmean", (0,), [[0.5, 5.0, 3.5, 1.0]]),
    ("absmean", (0, 1), [[2.5]]),
    ("absmedian", (1,), [[1.0], [1.0]]),
    ("absmedian", (0,), [[0.0, 2.0, 3.0, 1.0]]),
    ("absmedian", (0, 1), [[1.0]]),
    ("absmax", (1,), [[4.0], [8.0]]),
    ("absmax", (0,), [[1.0, 8.0, 4.0, 1.0]]),
    ("absmax", (0, 1), [[8.0]]),
  ],
)
def test_measure_equals_values_worked_by_hand(measure, axes, expected):
  m = MEASURES[measure](jnp.array(X), axes)
  np.testing.assert_array_equal(m, np.array(expected, np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_measure_is_float32_whatever_the_input(measure, dtype):
  m = MEASURES[measure](jnp.array(X, dtype), (1,))
  assert m.dtype == jnp.float32
  assert m.shape == (2, 1)


def test_mean_of_float16_is_summed_in_float32():
  m = MEASURES["absmean"](jnp.full((4096,), 60000.0, jnp.float16), (0,))
  np.testing.assert_array_equal(m, [60000.0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("measure", MEASURES)
def test_bad_value_makes_its_group_nan_and_no_other(measure, bad, dtype):
  x = jnp.array(X, dtype).at[1, 2].set(bad)
  rows = MEASURES[measure](x, (1,))
  np.testing.assert_array_equal(np.isnan(rows), [[False], [True]])
  assert np.isnan(MEASURES[measure](x, (0, 1))).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_empty_batch_has_no_measures(measure):
  assert MEASURES[measure](jnp.zeros((0, 3)), (1,)).shape == (0, 1)
