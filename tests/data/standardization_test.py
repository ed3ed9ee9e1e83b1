import numpy as np
import pytest

from bitnet_jax.data import standardization

# Float64 sums, one rounding to float32.
STATISTICS_RTOL = 1e-6


def noise(shape, seed=0):
  return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("chunk", [1, 50, 2**20])
@pytest.mark.parametrize("shape", [(40, 3, 5, 3), (40, 3, 3, 1), (40, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channel_statistics_equal_those_of_numpy(
  shape, dtype, chunk, monkeypatch
):
  monkeypatch.setattr(standardization, "_CHUNK_VALUES", chunk)
  inputs = noise(shape).astype(dtype)
  mean, std = standardization.channel_statistics(inputs)
  assert mean.dtype == std.dtype == np.float32
  flat = inputs.reshape(-1, shape[-1]).astype(np.float64)
  np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=STATISTICS_RTOL)
  np.testing.assert_allclose(std, flat.std(axis=0), rtol=STATISTICS_RTOL)


def test_channel_statistics_give_a_constant_channel_the_deviation_one():
  inputs = np.random.default_rng(0).normal(size=(1001, 3)).astype(np.float32)
  inputs[:, 1] = 0.1
  mean, std = standardization.channel_statistics(inputs)
  assert std[1] == 1
  assert mean[1] == np.float32(0.1)
  assert (std[[0, 2]] != 1).all()


def test_channel_statistics_survive_a_large_mean():
  inputs = np.float32(2**20) + np.tile([[0.0], [1.0]], (500, 1))
  mean, std = standardization.channel_statistics(inputs.astype(np.float32))
  np.testing.assert_array_equal(mean, np.float32(2**20 + 0.5))
  np.testing.assert_allclose(std, 0.5, rtol=STATISTICS_RTOL)


def test_channel_statistics_of_nothing_are_an_error():
  with pytest.raises(ValueError, match="empty"):
    standardization.channel_statistics(np.zeros((0, 3), np.uint8))


def test_channel_statistics_that_float32_cannot_hold_are_named():
  inputs = np.ones((4, 2))
  inputs[0, 1] = 1e40
  with pytest.raises(ValueError, match="channel 1 has the mean inf"):
    standardization.channel_statistics(inputs)


def test_channel_that_varies_by_subnormal_numbers_is_constant():
  inputs = noise((50, 2)).astype(np.float32)
  inputs[:, 0] *= np.float32(1e-41)
  _, std = standardization.channel_statistics(inputs)
  assert std[0] == 1 != std[1]


@pytest.mark.parametrize("shape", [(100, 4, 4, 2), (4000, 2)])
def test_value_that_makes_all_others_equal_is_named(shape):
  inputs = noise(shape).astype(np.float32)
  inputs[7, ..., 1].flat[0] = 3e38
  mean, std = standardization.channel_statistics(inputs)
  with pytest.raises(
    ValueError, match=r"here: example 7 has the value 3\S+ in channel 1, where"
  ):
    standardization.check_spread(inputs, mean, std, where="here")


@pytest.mark.parametrize("kind", ["noise", "rare", "heavy tail", "bytes"])
def test_values_that_differ_when_standardized_are_fine(kind):
  rng = np.random.default_rng(0)
  inputs = {
    "noise": rng.normal(size=(500, 3)) * 1e30,
    "rare": np.arange(3000).reshape(1000, 3) == 1500,  # Once in a feature.
    "heavy tail": np.exp(3 * rng.normal(size=(5000, 3))),
    "bytes": np.eye(255, dtype=np.uint8) * 255,
  }[kind]
  inputs = inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32)
  mean, std = standardization.channel_statistics(inputs)
  standardization.check_spread(inputs, mean, std, where="here")
  standardization.check_standardized(inputs, mean, std, where="here")


@pytest.mark.parametrize("value", [3e38, -3e38, np.nan, np.inf])
@pytest.mark.parametrize("channels", [1, 3])
def test_value_that_becomes_infinite_is_named(value, channels):
  inputs = noise((40, 2, 2, 3)).astype(np.float32)
  inputs[9, 1, 0, 2] = value
  mean, std = (np.full(channels, v, np.float32) for v in (0, 0.1))
  with pytest.raises(
    ValueError, match=r"valid: example 9 has the value \S+ in channel 2, which"
  ):
    standardization.check_standardized(inputs, mean, std, where="valid")
