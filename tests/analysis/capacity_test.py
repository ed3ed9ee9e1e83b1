"""Capacity ratios of simulated families with a known ratio."""

import math

import numpy as np
import pytest

from bitnet_jax.analysis import capacity
from tests.analysis.simulation import coverage, tolerance

WIDTHS = (32, 64, 128, 256)


def family(rng, ratio, seeds=5, noise=0.01, power=0.5, widths=WIDTHS):
  """Returns losses of nets that act as if ``ratio`` times narrower."""
  return {
    w: dict(
      enumerate(2 + 3 * (w / ratio) ** -power + noise * rng.normal(size=seeds))
    )
    for w in widths
  }


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0])
def test_ratio_without_noise_is_exact_up_to_interpolation(ratio):
  rng = np.random.default_rng(0)
  one, other = family(rng, 1, noise=0), family(rng, ratio, noise=0)
  found = capacity.ratio(one, other, diverged="exclude")
  assert found.value == pytest.approx(ratio, rel=0.04)
  back = capacity.ratio(other, one, diverged="exclude")
  assert back.value == pytest.approx(1 / found.value)


def test_ratio_at_a_width_reads_the_curve_at_its_loss():
  rng = np.random.default_rng(0)
  one, other = family(rng, 1, noise=0), family(rng, 2, noise=0)
  found = capacity.ratio(one, other, diverged="exclude", at=64)
  assert found.value == pytest.approx(2)
  assert found.notes == ("compared at losses of 2.375 to 2.375",)


@pytest.mark.parametrize("seeds", [5, 10])
def test_intervals_of_the_ratio_cover(seeds):
  rng = np.random.default_rng(seeds)
  found = [
    capacity.ratio(
      family(rng, 1, seeds), family(rng, 2, seeds), diverged="exclude"
    )
    for _ in range(200)
  ]
  assert coverage(found, 2.0) > 0.95 - tolerance(0.95, 200)
  # And are not wide for that.
  assert np.mean([e.p_above(1.5) < 0.025 for e in found]) > 0.8


@pytest.mark.parametrize("model", ["power", "trend"])
def test_extrapolation_finds_the_ratio_beyond_the_widths(model):
  rng = np.random.default_rng(1)
  widths = (32, 64, 128, 256, 512)
  one = family(rng, 1, noise=1e-3, widths=widths)
  other = family(rng, 2, noise=1e-3, widths=widths)
  found = capacity.extrapolate(
    one, other, (1024, 4096), diverged="exclude", model=model
  )
  for estimate in found.values():
    low, high = estimate.interval()
    assert low < 2 < high and high / low < 2
  near, far = (math.log(np.divide(*e.interval()[::-1])) for e in found.values())
  assert near < far


@pytest.mark.slow
@pytest.mark.parametrize("model", ["power", "trend"])
def test_intervals_of_the_extrapolation_cover(model):
  rng = np.random.default_rng(1)
  found = [
    capacity.extrapolate(
      family(rng, 1), family(rng, 2), (1024,), diverged="exclude", model=model
    )[1024]
    for _ in range(100)
  ]
  # Interpolation bends the trend a little.
  assert coverage(found, 2.0) > 0.93 - tolerance(0.93, 100)


def test_families_without_a_common_loss_are_refused():
  rng = np.random.default_rng(0)
  one, other = family(rng, 1), family(rng, 100)
  with pytest.raises(capacity.NoOverlapError, match="have none in common"):
    capacity.ratio(one, other, diverged="exclude")
  with pytest.raises(capacity.NoOverlapError, match="reference of width 256"):
    capacity.ratio(one, family(rng, 2), diverged="exclude", at=256)
  with pytest.raises(capacity.NoOverlapError, match="of 0 widths"):
    capacity.extrapolate(one, other, (512,), diverged="exclude", model="trend")


def test_bad_input_is_named():
  curve = family(np.random.default_rng(0), 1)
  with pytest.raises(ValueError, match=r"outside the widths .* 32 to 256"):
    capacity.ratio(curve, curve, diverged="exclude", at=512)
  with pytest.raises(ValueError, match="candidate needs at least 2 widths"):
    capacity.ratio(curve, {32: {0: 1.0}}, diverged="exclude")
  with pytest.raises(ValueError, match="'power' needs at least 3 widths"):
    two = {w: curve[w] for w in (32, 64)}
    capacity.extrapolate(curve, two, (512,), diverged="exclude")
  with pytest.raises(ValueError, match="model is 'line'"):
    capacity.extrapolate(curve, curve, (512,), diverged="exclude", model="line")


def test_a_diverged_seed_is_left_out_and_named():
  one, other = (family(np.random.default_rng(0), r, seeds=6) for r in (1, 2))
  other[64][2] = None
  found = capacity.ratio(one, other, diverged="exclude")
  assert found.seeds == 5 and found.notes[0].endswith("diverged: seed 2")
