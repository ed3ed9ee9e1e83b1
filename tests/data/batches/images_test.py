import hashlib
import os
import pathlib

import numpy as np
import pytest

from bitnet_jax.data.batches import images


def encode(pixels):
  """The packed form, straight from its description."""
  planes = pixels.transpose(3, 0, 1, 2).copy()
  planes[0] -= planes[1]
  planes[2] -= planes[1]
  residuals = planes.copy()
  residuals[..., 1:] -= planes[..., :-1]
  residuals[:, :, 1:, 0] -= planes[:, :, :-1, 0]
  return residuals


def noise(shape, seed=0):
  return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def test_decode_residuals_undoes_the_packing():
  pixels = noise((5, 4, 6, 3))
  residuals = encode(pixels)
  before = residuals.copy()
  decoded = images.decode_residuals(residuals)
  assert decoded.dtype == np.uint8
  assert decoded.flags.c_contiguous
  np.testing.assert_array_equal(decoded, pixels)
  np.testing.assert_array_equal(residuals, before)


def test_decode_residuals_matches_values_worked_by_hand():
  residuals = np.zeros((3, 1, 2, 2), np.uint8)
  residuals[1, 0] = [[10, 1], [5, 255]]  # green: 10 11 / 15 14
  residuals[0, 0] = [[250, 0], [0, 0]]  # red less green: -6 everywhere
  residuals[2, 0] = [[1, 0], [0, 1]]  # blue less green: 1 1 / 1 2
  np.testing.assert_array_equal(
    images.decode_residuals(residuals)[0],
    [[[4, 10, 11], [5, 11, 12]], [[9, 15, 16], [8, 14, 16]]],
  )


@pytest.mark.parametrize(
  ("member", "sha256"),
  [
    (
      "x_train_res",
      "42e433932421140ace6034f03e88236f16314f9e07e8db2ebb6fd5e7d5f43b0b",
    ),
    (
      "x_test_res",
      "cfad52e4a7fb0184dcdd398a19653c59b261facf6052337dd2ad6ead44262a0b",
    ),
  ],
)
def test_decoded_cifar100_has_the_published_content(member, sha256):
  folder = os.environ.get("BITNET_JAX_DATA")
  if not folder or not pathlib.Path(folder).is_dir():
    pytest.skip("BITNET_JAX_DATA names no folder of data sets")
  file = pathlib.Path(folder) / "cifar100_subset" / "cifar100_subset.npz"
  decoded = images.decode_residuals(np.load(file)[member])
  assert hashlib.sha256(decoded.tobytes()).hexdigest() == sha256


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_equals_a_loop_over_images(channels, dtype):
  pixels = noise((9, 5, 7, channels)).astype(dtype)
  offsets = np.array([(i // 3 * 2, i % 3 * 2) for i in range(9)])
  padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2), (0, 0)))
  expected = [
    image[row : row + 5, column : column + 7]
    for image, (row, column) in zip(padded, offsets, strict=True)
  ]
  cropped = images.crop(pixels, offsets, padding=2)
  assert cropped.dtype == dtype
  assert cropped.flags.c_contiguous
  np.testing.assert_array_equal(cropped, expected)


def test_crop_in_the_middle_changes_nothing():
  pixels = noise((2, 4, 4, 1))
  offsets = np.full((2, 2), 3)
  np.testing.assert_array_equal(images.crop(pixels, offsets, padding=3), pixels)


def test_random_crop_reaches_every_shift_equally_often():
  pixels = np.zeros((4500, 3, 3, 1), np.uint8)
  pixels[:, 1, 1] = 1
  cropped = images.random_crop(pixels, np.random.default_rng(0), padding=1)
  counts = cropped.sum(axis=0)[..., 0]
  assert counts.sum() == 4500  # a shift by one keeps the middle in sight
  # Nine places, 500 expected, standard deviation 21.
  np.testing.assert_allclose(counts, 500, atol=85)


def test_random_flip_mirrors_about_half_of_the_images_left_and_right():
  pixels = noise((1000, 2, 3, 2))
  before = pixels.copy()
  flipped = images.random_flip(pixels, np.random.default_rng(0))
  kept = (flipped == pixels).all(axis=(1, 2, 3))
  mirrored = (flipped == pixels[:, :, ::-1]).all(axis=(1, 2, 3))
  assert (kept ^ mirrored).all()
  assert 400 < mirrored.sum() < 600
  np.testing.assert_array_equal(pixels, before)


def test_augmentation_is_a_function_of_the_generator():
  pixels = noise((50, 6, 6, 1))

  def augment(seed):
    rng = np.random.default_rng(seed)
    return images.random_flip(images.random_crop(pixels, rng, padding=2), rng)

  np.testing.assert_array_equal(augment(0), augment(0))
  assert (augment(0) != augment(1)).any()


# Float64 sums, one rounding to float32.
STATISTICS_RTOL = 1e-6


@pytest.mark.parametrize("chunk", [1, 50, 2**20])
@pytest.mark.parametrize("shape", [(40, 3, 5, 3), (40, 3, 3, 1), (40, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channel_statistics_equal_those_of_numpy(
  shape, dtype, chunk, monkeypatch
):
  monkeypatch.setattr(images, "_CHUNK_VALUES", chunk)
  inputs = noise(shape).astype(dtype)
  mean, std = images.channel_statistics(inputs)
  assert mean.dtype == std.dtype == np.float32
  flat = inputs.reshape(-1, shape[-1]).astype(np.float64)
  np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=STATISTICS_RTOL)
  np.testing.assert_allclose(std, flat.std(axis=0), rtol=STATISTICS_RTOL)


def test_channel_statistics_give_a_constant_channel_the_deviation_one():
  inputs = np.random.default_rng(0).normal(size=(1001, 3)).astype(np.float32)
  inputs[:, 1] = 0.1
  mean, std = images.channel_statistics(inputs)
  assert std[1] == 1
  assert mean[1] == np.float32(0.1)
  assert (std[[0, 2]] != 1).all()


def test_channel_statistics_survive_a_large_mean():
  inputs = np.float32(2**20) + np.tile([[0.0], [1.0]], (500, 1))
  mean, std = images.channel_statistics(inputs.astype(np.float32))
  np.testing.assert_array_equal(mean, np.float32(2**20 + 0.5))
  np.testing.assert_allclose(std, 0.5, rtol=STATISTICS_RTOL)


def test_channel_statistics_of_nothing_are_an_error():
  with pytest.raises(ValueError, match="empty"):
    images.channel_statistics(np.zeros((0, 3), np.uint8))


def test_channel_statistics_that_float32_cannot_hold_are_named():
  inputs = np.ones((4, 2))
  inputs[0, 1] = 1e40
  with pytest.raises(ValueError, match="channel 1 has the mean inf"):
    images.channel_statistics(inputs)


def test_channel_that_varies_by_subnormal_numbers_is_constant():
  inputs = noise((50, 2)).astype(np.float32)
  inputs[:, 0] *= np.float32(1e-41)
  _, std = images.channel_statistics(inputs)
  assert std[0] == 1 != std[1]


@pytest.mark.parametrize("shape", [(100, 4, 4, 2), (4000, 2)])
def test_value_that_makes_all_others_equal_is_named(shape):
  inputs = noise(shape).astype(np.float32)
  inputs[7, ..., 1].flat[0] = 3e38
  mean, std = images.channel_statistics(inputs)
  with pytest.raises(
    ValueError, match=r"here: example 7 has the value 3\S+ in channel 1, where"
  ):
    images.check_spread(inputs, mean, std, where="here")


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
  mean, std = images.channel_statistics(inputs)
  images.check_spread(inputs, mean, std, where="here")
  images.check_standardized(inputs, mean, std, where="here")


@pytest.mark.parametrize("value", [3e38, -3e38, np.nan, np.inf])
@pytest.mark.parametrize("channels", [1, 3])
def test_value_that_becomes_infinite_is_named(value, channels):
  inputs = noise((40, 2, 2, 3)).astype(np.float32)
  inputs[9, 1, 0, 2] = value
  mean, std = (np.full(channels, v, np.float32) for v in (0, 0.1))
  with pytest.raises(
    ValueError, match=r"valid: example 9 has the value \S+ in channel 2, which"
  ):
    images.check_standardized(inputs, mean, std, where="valid")
