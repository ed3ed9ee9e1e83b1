"""Seeds that a question needs, against simulation."""

import numpy as np
import pytest

from bitnet_jax.analysis import estimates, power


def test_that_many_seeds_make_the_interval_narrow_and_one_less_does_not():
  count = power.seeds_for(0.01, 0.004)
  for n, narrow in ((count, True), (count - 1, False)):
    values = np.resize([1.0, -1.0], n)
    values = 0.01 * (values - values.mean()) / values.std(ddof=1)
    low, high = estimates.mean(values).interval()
    assert (high - low <= 0.008) == narrow


def test_ends_of_the_number_of_seeds():
  assert power.seeds_for(0.0, 0.1) == 2
  assert power.seeds_for(1.0, 1e-6) is None
  with pytest.raises(ValueError, match="half_width is 0"):
    power.seeds_for(1.0, 0)


@pytest.mark.parametrize("effect", [0.3, 0.6])
def test_seeds_decide_with_the_stated_power(effect):
  def decided(low, high):
    return low > 0 or high < 0

  half = 1.0 * estimates.mean([1.0, -1.0, 0.0]).interval()[1] * 3**0.5 / 3**0.5
  found = power.seeds_to_decide(
    decided, effect, (effect - half, effect + half), 3
  )
  values = np.random.default_rng(0).normal(effect, 1.0, size=(400, found))
  rate = np.mean([decided(*estimates.mean(row).interval()) for row in values])
  assert rate == pytest.approx(power.POWER, abs=0.08)


def test_undecidable_at_any_number_of_seeds_is_none():
  assert power.seeds_to_decide(lambda *_: False, 0.0, (-1.0, 1.0), 5) is None
