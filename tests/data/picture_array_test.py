import gc
import os
import pathlib
import tempfile

import numpy as np
import pytest
from PIL import Image

from bitnet_jax.data import decoded_file, standardization
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


@pytest.fixture(params=["decoded once", "decoded for each batch"])
def prepare(request, monkeypatch):
  """Prepares pictures, with or without room for a temporary file."""
  if request.param == "decoded for each batch":
    monkeypatch.setattr(decoded_file, "_MOST", 0)
  return PictureArray.prepared


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_prepared_pictures_are_those_of_the_array(tmp_path, mode, prepare):
  pictures, array = make(tmp_path, mode)
  rows = np.arange(70) % 4 > 0
  prepared, expected = prepare(pictures).take(rows), array[rows]
  for index in (slice(2, 9), np.array([5, 0, 5, 40])):
    np.testing.assert_array_equal(prepared[index], expected[index])
  for found, statistic in zip(
    standardization.channel_statistics(prepared),
    standardization.channel_statistics(expected),
    strict=True,
  ):
    np.testing.assert_array_equal(found, statistic)
    assert found.dtype == np.float32


def test_decoded_pictures_need_their_files_no_more(tmp_path):
  pictures, array = make(tmp_path, count=3)
  prepared = pictures.prepared()
  for file in prepared.files:
    file.unlink()
  np.testing.assert_array_equal(prepared[:], array)


def test_temporary_file_leaves_nothing(tmp_path, monkeypatch):
  pictures, _ = make(tmp_path, count=3)
  (tmp_path / "large").mkdir()
  monkeypatch.setenv("TMPDIR", str(tmp_path / "large"))
  monkeypatch.setattr(tempfile, "tempdir", None)
  before = len(os.listdir("/proc/self/fd"))
  prepared = pictures.prepared()
  assert len(os.listdir("/proc/self/fd")) == before + 1
  assert not any((tmp_path / "large").iterdir())
  del prepared
  gc.collect()
  assert len(os.listdir("/proc/self/fd")) == before


def test_lack_of_room_is_a_warning(tmp_path, monkeypatch, caplog):
  pictures, _ = make(tmp_path, count=3)
  monkeypatch.setattr(decoded_file, "_MOST", 0)
  pictures.prepared()
  (record,) = caplog.records
  message = "decoded again for each batch, as there is no room for 180 bytes"
  assert message in record.getMessage()


def test_picture_that_vanished_or_changed_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(decoded_file, "_MOST", 0)
  pictures = make(tmp_path, count=4)[0].prepared()
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
