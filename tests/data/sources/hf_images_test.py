import io

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from PIL import Image

from bitnet_jax.data.sources import hf_sets
from bitnet_jax.data.views import arrays
from tests.data.loading import load

NAMES = ["cat", "dog"]


def picture(value, size=(6, 4), mode="RGB"):
  """A picture of one colour; size is width and height."""
  return Image.new(mode, size, value if mode == "L" else (value, 0, 0))


def encoded(value, ending="PNG", **options):
  file = io.BytesIO()
  picture(value, **options).save(file, ending)
  return file.getvalue()


def pets(files, labels=None, names=NAMES, image="image", label="label"):
  """A split of pictures, given as bytes or paths."""
  labels = labels or [i % 2 for i in range(len(files))]
  kind = Value("string") if isinstance(labels[0], str) else ClassLabel
  feature = kind if kind is not ClassLabel else ClassLabel(names=names)
  rows = [f if isinstance(f, str | None) else {"bytes": f} for f in files]
  return Dataset.from_dict(
    {image: rows, label: labels},
    features=Features({image: datasets.Image(), label: feature}),
  )


def save(folder, **parts):
  with hf_sets._quiet(datasets):
    DatasetDict(parts).save_to_disk(str(folder))
  return f"hf:{folder}"


def read(source, **options):
  return load(arrays.load, source, **options)


def test_pictures_become_arrays_with_the_names_of_classes(tmp_path):
  source = save(
    tmp_path / "pets é",
    train=pets([encoded(i % 256) for i in range(300)]),
    validation=pets([encoded(7)], [1]),
    test=pets([encoded(9)], [-1]),  # as unpublished labels are
  )
  found = read(source)
  assert {k: s.inputs.shape for k, s in found.splits.items()} == {
    "train": (300, 4, 6, 3),
    "valid": (1, 4, 6, 3),
  }
  train = found.splits["train"]
  assert train.inputs.dtype == np.uint8
  assert train.inputs[:, 0, 0, 0].tolist() == [i % 256 for i in range(300)]
  assert train.labels.tolist() == [i % 2 for i in range(300)]
  assert found.class_names == ("cat", "dog")
  assert found.splits["valid"].labels.tolist() == [1]


def test_grey_pictures_have_one_channel(tmp_path):
  grey = [encoded(i, mode="L") for i in range(4)]
  (train,) = read(save(tmp_path / "a", train=pets(grey))).splits.values()
  assert train.inputs.shape == (4, 4, 6, 1)
  mixed = [*grey, encoded(200)]
  (train,) = read(save(tmp_path / "b", train=pets(mixed))).splits.values()
  assert train.inputs.shape == (5, 4, 6, 3)


def test_pictures_of_many_sizes_need_image_size(tmp_path):
  files = [encoded(9), encoded(9, "JPEG", size=(20, 30)), encoded(9)]
  source = save(tmp_path, train=pets(files))
  message = "first picture has 6 x 4 pixels, but hf:.* train, row 1 has 20 x 30"
  with pytest.raises(ValueError, match=f"{message}; data.image_size makes"):
    read(source)
  (train,) = read(source, image_size=8).splits.values()
  assert train.inputs.shape == (3, 8, 8, 3)
  padded = read(source, image_size=8, image_fit="pad").splits["train"]
  assert padded.inputs[0, 0].max() == 0 < train.inputs[0, 0].max()


def test_columns_are_found_by_their_kind(tmp_path):
  files = [encoded(i) for i in range(4)]
  source = save(tmp_path / "a", train=pets(files, image="img", label="animal"))
  assert read(source).class_names == ("cat", "dog")
  two = pets(files, label="animal").add_column("age", [1, 2, 1, 1])
  source = save(tmp_path / "b", train=two)
  assert read(source).class_names == ("cat", "dog")
  assert read(source, label="age").class_names == ("1", "2")
  texts = pets(files, ["b", "a", "b", "a"], label="kind")
  source = save(tmp_path / "c", train=texts)
  assert read(source, label="kind").class_names == ("a", "b")
  with pytest.raises(
    ValueError, match=r"no column label, it has kind; data\.lab"
  ):
    read(source)


def test_set_without_pictures_or_with_two_names_its_columns(tmp_path):
  table = Dataset.from_dict({"text": ["a"], "label": [1]})
  source = save(tmp_path / "a", train=table)
  with pytest.raises(
    ValueError, match=r"no columns of pictures .* text, label"
  ):
    read(source)
  rows = [{"bytes": encoded(1)}]
  both = Features({"x": datasets.Image(), "y": datasets.Image()})
  table = Dataset.from_dict({"x": rows, "y": rows}, features=both)
  source = save(tmp_path / "b", train=table)
  with pytest.raises(
    ValueError, match=r"has 2 columns of pictures .* has x, y"
  ):
    read(source)


@pytest.mark.parametrize(
  ("file", "message"),
  [
    (b"no picture", "cannot read hf:.* train, row 1 as a picture: its content"),
    (b"", "cannot read hf:.* train, row 1 as a picture: it is empty"),
    (None, "train, row 1 has no picture"),
  ],
)
def test_picture_that_cannot_be_read_is_named_with_its_row(
  tmp_path, file, message
):
  source = save(tmp_path, train=pets([encoded(1), file, encoded(2)]))
  with pytest.raises(ValueError, match=message) as caught:
    read(source)
  assert "\n" not in str(caught.value)


def test_labels_that_cannot_be_used_are_errors(tmp_path):
  files = [encoded(i) for i in range(3)]
  source = save(tmp_path / "a", train=pets(files, [0, 0, 0], names=["cat"]))
  with pytest.raises(ValueError, match="only the class cat; there must be two"):
    read(source)
  source = save(tmp_path / "b", train=pets(files, [-1, -1, -1]))
  with pytest.raises(ValueError, match="train has no labels in label"):
    read(source)
  source = save(tmp_path / "c", train=pets(files, [0, -1, 1]))
  with pytest.raises(
    ValueError, match="row 1: label is None, which is none of"
  ):
    read(source)
  other = pets(files, names=["cow", "dog"])
  source = save(tmp_path / "d", train=pets(files), test=other)
  message = "other classes in label: train cat, dog; test cow, dog"
  with pytest.raises(ValueError, match=message):
    read(source)


def test_fingerprint_is_that_of_pictures_and_labels(tmp_path):
  files = [encoded(i) for i in range(4)]
  first = read(save(tmp_path / "a", train=pets(files))).fingerprint
  # Files beside the set have the same content.
  paths = []
  for i, data in enumerate(files):
    (tmp_path / f"{i}.png").write_bytes(data)
    paths.append(str(tmp_path / f"{i}.png"))
  assert read(save(tmp_path / "b", train=pets(paths))).fingerprint == first
  others = [
    pets([*files[:3], encoded(77)]),
    pets(files, [0, 1, 0, 0]),
    pets(files, names=["cat", "cow"]),
    pets(files[::-1], [0, 1, 0, 1]),
  ]
  found = {
    read(save(tmp_path / f"other{i}", train=other)).fingerprint
    for i, other in enumerate(others)
  }
  assert len(found | {first}) == 5


def test_folder_of_pictures_is_read_by_the_library(tmp_path, monkeypatch):
  monkeypatch.setattr(
    datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache")
  )
  for split, name in (("train", "a"), ("train", "b"), ("test", "a")):
    folder = tmp_path / "set" / split / name
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(encoded(5))
  found = read(f"hf:{tmp_path / 'set'}")
  assert found.class_names == ("a", "b")
  assert {k: len(s) for k, s in found.splits.items()} == {"train": 2, "test": 1}
