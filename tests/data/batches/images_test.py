import numpy as np
import pytest

from bitnet_jax.data.batches import images


def noise(shape, seed=0):
  return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


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
