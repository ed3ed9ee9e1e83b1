import shutil

import numpy as np
import pytest
from PIL import Image

from bitnet_jax.data.sources import folder
from bitnet_jax.data.views import arrays
from tests.data import loading


def write(root, count=6, size=(5, 4), mode="RGB", classes=("cat", "dög")):
  """Writes pictures of noise by class; returns their pixels in order."""
  rng = np.random.default_rng(0)
  written = []
  for name in classes:
    (root / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
      values = rng.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
      picture = Image.fromarray(values).convert(mode)
      picture.save(root / name / f"{i}, {mode}.png")
      written.append(np.asarray(picture))
  return np.stack(written)


def load(root, **options):
  options = dict(valid_fraction=0.0, test_fraction=0.0) | options
  return loading.load(arrays.load, f"folder:{root}", **options)


def test_pictures_of_one_size_are_read_as_they_are(tmp_path):
  expected = write(tmp_path)
  dataset = load(tmp_path)
  (train,) = dataset.splits.values()
  np.testing.assert_array_equal(train.inputs, expected)
  np.testing.assert_array_equal(train.labels, [0] * 6 + [1] * 6)
  assert train.labels.dtype == np.int32
  assert dataset.num_classes == 2
  assert dataset.class_names == ("cat", "dög")


def test_grey_pictures_have_one_channel_and_one_in_colours_makes_it_three(
  tmp_path,
):
  grey = write(tmp_path, mode="L")
  (train,) = load(tmp_path).splits.values()
  np.testing.assert_array_equal(train.inputs[..., 0], grey)
  Image.new("RGB", (5, 4)).save(tmp_path / "cat" / "9.png")
  (train,) = load(tmp_path).splits.values()
  assert train.inputs.shape == (13, 4, 5, 3)
  np.testing.assert_array_equal(train.inputs[0], np.stack([grey[0]] * 3, -1))


def test_pictures_of_all_modes_and_sizes_become_one_size(tmp_path):
  for i, mode in enumerate(("1", "L", "LA", "P", "RGB", "RGBA")):
    write(tmp_path, count=2, size=(5 + i, 9 - i), mode=mode)
  (train,) = load(tmp_path, image_size=7).splits.values()
  assert train.inputs.shape == (24, 7, 7, 3)
  (padded,) = load(tmp_path, image_size=7, image_fit="pad").splits.values()
  assert padded.inputs.shape == train.inputs.shape
  assert not padded.inputs[0, :, 0].any() and train.inputs[0, :, 0].any()


def test_missing_splits_are_cut_from_the_folder_of_classes(tmp_path):
  write(tmp_path, count=20)
  splits = load(tmp_path, valid_fraction=0.2, test_fraction=0.25).splits
  assert {k: len(s) for k, s in splits.items()} == {
    "train": 24,
    "valid": 6,
    "test": 10,
  }
  assert np.bincount(splits["test"].labels).tolist() == [5, 5]


def test_folders_of_splits_are_used_as_they_are(tmp_path):
  write(tmp_path / "train")
  expected = write(tmp_path / "test", count=2)
  splits = load(tmp_path, valid_fraction=0.5, test_fraction=0.5).splits
  np.testing.assert_array_equal(splits["test"].inputs, expected)
  assert {key: len(s) for key, s in splits.items()} == {
    "train": 6,
    "valid": 6,
    "test": 4,
  }


def test_fingerprint_is_of_names_and_content_not_of_the_place(tmp_path):
  write(tmp_path / "one")
  shutil.copytree(tmp_path / "one", tmp_path / "two")
  one, two = tmp_path / "one", tmp_path / "two"
  first = load(one).fingerprint
  assert first.startswith("sha256:")
  assert load(two).fingerprint == first
  (two / "cat" / "0, RGB.png").rename(two / "cat" / "7.png")
  renamed = load(two).fingerprint
  Image.new("RGB", (5, 4)).save(one / "cat" / "0, RGB.png")
  assert len({first, renamed, load(one).fingerprint}) == 3


def test_sizes_are_those_of_some_of_the_pictures(tmp_path):
  write(tmp_path)
  write(tmp_path, classes=("emu",), size=(9, 8))
  assert folder.sizes(str(tmp_path)) == [(4, 5)] * 12 + [(8, 9)] * 6
  assert folder.sizes(str(tmp_path), most=3) == [(4, 5)] * 2 + [(8, 9)]


def test_mixed_sizes_are_an_error_that_names_two_and_the_key(tmp_path):
  write(tmp_path)
  Image.new("RGB", (8, 4)).save(tmp_path / "dög" / "9.png")
  with pytest.raises(ValueError) as caught:
    load(tmp_path)
  assert str(caught.value) == (
    f"{tmp_path}/cat/0, RGB.png has 5 x 4 pixels, but {tmp_path}/dög/9.png has"
    " 8 x 4; data.image_size makes them all one size, such as"
    " --config.data.image_size=64"
  )


def test_damaged_picture_is_an_error_that_names_it(tmp_path):
  write(tmp_path)
  file = tmp_path / "dög" / "3, RGB.png"
  file.write_bytes(file.read_bytes()[:-30])
  with pytest.raises(ValueError, match=f"^cannot read {file} as a picture: "):
    load(tmp_path)


def test_class_with_a_single_picture_is_a_warning(tmp_path, caplog):
  write(tmp_path)
  write(tmp_path, count=1, classes=("emu",))
  load(tmp_path)
  (record,) = caplog.records
  assert "1 of 3 classes have only one training picture" in record.getMessage()
  assert record.getMessage().endswith("emu")


def test_number_of_classes_must_be_that_of_the_folders(tmp_path):
  write(tmp_path)
  with pytest.raises(ValueError, match=r"num_classes=3, but .* has 2 classes"):
    load(tmp_path, num_classes=3)
