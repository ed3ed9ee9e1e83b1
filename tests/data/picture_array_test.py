import pathlib

import numpy as np
import pytest
from PIL import Image

from bitnet_jax.data import standardization
from bitnet_jax.data.picture_array import PictureArray


def make(folder, mode="RGB", count=70, size=(5, 4)):
  """Writes pictures of noise; returns them as an array of each kind."""
  rng = np.random.default_rng(0)
  files = [pathlib.Path(folder, f"{i}.png") for i in range(count)]
  for file in files:
    values = rng.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(file)
  shape = (size[1], size[0], len(mode))
  pictures = PictureArray(
    files=files, example_shape=shape, fit=None, like=files[0]
  )
  return pictures, pictures.in_memory()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures_are_indexed_like_an_array(tmp_path, mode):
  pictures, array = make(tmp_path, mode)
  for name in ("shape", "ndim", "size", "dtype"):
    assert getattr(pictures, name) == getattr(array, name)
  np.testing.assert_array_equal(
    array[3],
    np.asarray(Image.open(tmp_path / "3.png")).reshape(array.shape[1:]),
  )
  for index in (slice(2, 9), np.array([5, 0, 5, 69]), slice(None, 1)):
    np.testing.assert_array_equal(pictures[index], array[index])
  rows = np.arange(70) % 3 == 0
  np.testing.assert_array_equal(pictures.take(rows)[:], array[rows])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_statistics_are_those_of_the_array_to_the_bit(tmp_path, mode):
  pictures, array = make(tmp_path, mode)
  rows = np.arange(70) % 4 > 0
  measured = pictures.measured().take(rows)
  for found, expected in zip(
    standardization.channel_statistics(measured),
    standardization.channel_statistics(array[rows]),
    strict=True,
  ):
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


def test_statistics_read_one_picture_only(tmp_path):
  pictures, _ = make(tmp_path, count=3)
  measured = pictures.measured()
  for file in measured.files[1:]:
    file.unlink()
  assert standardization.channel_statistics(measured)[0].shape == (3,)


def test_picture_that_vanished_or_changed_is_named(tmp_path):
  pictures, _ = make(tmp_path, count=4)
  file = pictures.files[2]
  Image.new("RGB", (6, 4)).save(file)
  message = f"0.png has 5 x 4 pixels, but {file} has 6 x 4; .*; it changed aft"
  with pytest.raises(ValueError, match=message):
    pictures[np.array([1, 2])]
  file.write_bytes(file.read_bytes()[:40])
  message = f"^cannot read {file} as a picture: .*; it changed after the start$"
  with pytest.raises(ValueError, match=message):
    pictures[np.array([1, 2])]
  file.unlink()
  with pytest.raises(
    FileNotFoundError, match=f"there is no picture {file}; it"
  ):
    pictures[np.array([1, 2])]
