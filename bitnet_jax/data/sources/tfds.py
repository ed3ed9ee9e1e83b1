"""Reads data sets prepared by TensorFlow Datasets: texts, images and labels.

Reading needs neither TensorFlow nor a network.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax.data import graphs, splits
from bitnet_jax.data.sources import pictures
from bitnet_jax.data.sources.tables import Records, Source, Table
from bitnet_jax.extras import needed_by

# Our names of the splits, by theirs.
_SPLITS = {
  "train": "train",
  "validation": "valid",
  "valid": "valid",
  "test": "test",
}
# Columns of the texts of GLUE, by task.
_GLUE = {
  "ax": ("premise", "hypothesis"),
  "cola": ("sentence",),
  "mnli": ("premise", "hypothesis"),
  "mnli_matched": ("premise", "hypothesis"),
  "mnli_mismatched": ("premise", "hypothesis"),
  "mrpc": ("sentence1", "sentence2"),
  "qnli": ("question", "sentence"),
  "qqp": ("question1", "question2"),
  "rte": ("sentence1", "sentence2"),
  "sst2": ("sentence",),
  "stsb": ("sentence1", "sentence2"),
  "wnli": ("sentence1", "sentence2"),
}


def read(name: str, cuts: splits.Cuts) -> Source:
  """Opens all splits of a prepared set; examples are read when needed.

  Args:
    name: as in `tfds.builder`: a set, optionally with config and version.
    cuts: `data_dir` is the folder of the prepared sets, by default
      `TFDS_DATA_DIR`, else that of tensorflow-datasets. `split_names` may be
      parts of a split, as `train[:1%]`.

  Raises:
    ImportError: tensorflow-datasets is not installed.
    ValueError: the set is unknown, is not prepared for random access, or lacks
      a split.
  """
  info, sources = _open(name, cuts)
  return Source(
    splits={
      key: Records(
        records=source, name=f"tfds:{name} {key}", first=0, unit="example"
      )
      for key, source in sources.items()
    },
    names=tuple(info.features),
    texts=_GLUE.get(name.removeprefix("glue/").split(":")[0], ()),
    pair=info.supervised_keys or (),
    class_names={
      key: feature.names
      for key, feature in info.features.items()
      if getattr(feature, "names", None)
    },
  )


def read_graphs(name: str, cuts: splits.Cuts) -> Source:
  """Reads the graphs of a prepared set, whose features are their members.

  Raises:
    ImportError: see `read`.
    ValueError: see `read`.
  """
  opened = read(name, cuts)
  tables: dict[str, Any] = {}
  for key, table in opened.splits.items():
    examples: Any = table
    records = [
      {k: np.asarray(v) for k, v in examples.records[row].items()}
      for row in range(len(examples))
    ]
    tables[key] = dataclasses.replace(examples, records=records)
  return dataclasses.replace(
    opened,
    splits=tables,
    fingerprint=graphs.digest({k: t.records for k, t in tables.items()}),
  )


def read_images(
  name: str,
  cuts: splits.Cuts,
  *,
  image_size: int | None = None,
  image_fit: str = "crop",
) -> Source:
  """Reads images and labels of a prepared set into memory.

  Args:
    name: see `read`.
    cuts: see `read`.
    image_size: side of square images. Required if images differ in shape.
    image_fit: how images are made square, see `pictures.read`.

  Returns:
    Tables with "inputs", uint8 [n, height, width, channels], and "labels",
    int64 [n]. The fingerprint is the name with config and version.

  Raises:
    ImportError: see `read`.
    ValueError: see `read`; or the set does not have uint8 images and class
      labels.
  """
  info, sources = _open(name, cuts)
  shape, num_classes = _check_features(name, info.features, image_size)
  tables = {}
  for key, source in sources.items():
    inputs = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int64)
    for i in range(len(source)):
      example = source[i]
      image = example["image"]
      if image_size is not None:
        image = pictures.fitted(image, image_size, image_fit)
      inputs[i] = image
      labels[i] = example["label"]
    tables[key] = Table(
      columns={"inputs": inputs, "labels": labels}, name=f"tfds:{name} {key}"
    )
  return Source(
    splits=tables,
    num_classes=num_classes,
    class_names={
      "labels": getattr(info.features["label"], "names", None) or ()
    },
    fingerprint=f"tfds:{info.full_name}",
  )


def image_sizes(
  name: str, cuts: splits.Cuts, *, most: int = 256
) -> list[tuple[int, int]]:
  """Returns height and width of training images, see `read_images`.

  Args:
    name: see `read`.
    cuts: see `read`.
    most: of this many images at most, which are spread evenly.
  """
  info, sources = _open(name, cuts)
  _check_features(name, info.features, image_size=1)
  height, width, _ = info.features["image"].shape
  if None not in (height, width):
    return [(height, width)]
  train = sources["train"]
  rows = range(0, len(train), -(-len(train) // most))
  return [train[row]["image"].shape[:2] for row in rows]


def _open(name, cuts) -> tuple[Any, dict[str, Sequence[Mapping[str, Any]]]]:
  """Returns the `DatasetInfo`, and examples by split."""
  builder: Any = _builder(name, cuts.data_dir)
  there = builder.info.splits
  found = {_SPLITS[key]: key for key in there if key in _SPLITS}
  found |= dict(cuts.split_names)
  for key in ("train", *found):
    if found.get(key, key).partition("[")[0] not in there:
      raise ValueError(
        f"tfds:{name} has no split {found.get(key, key)}, it has"
        f" {', '.join(there)}"
      )
  try:
    return builder.info, {
      key: builder.as_data_source(split=split) for key, split in found.items()
    }
  except NotImplementedError as error:
    raise ValueError(
      f"tfds:{name} is prepared in {builder.data_dir} in a format without"
      f" random access. {_how_to_prepare(name)}"
    ) from error


def _how_to_prepare(name):
  return (
    "Prepare it once, with TensorFlow and a network: pip install tensorflow;"
    f" tfds build {name} --file_format=array_record --data_dir=DIR, and pass"
    " DIR as data_dir or in TFDS_DATA_DIR"
  )


def _builder(name, data_dir):
  """Returns the builder of a set that is known and prepared."""
  with needed_by(f"tfds:{name}", "tensorflow-datasets", extra="tfds"):
    import tensorflow_datasets as tfds
  try:
    builder = tfds.builder(name, data_dir=data_dir)
  except (ValueError, AssertionError) as error:
    place = data_dir or tfds.core.constants.DATA_DIR
    raise ValueError(
      f"tfds:{name} is neither a set that tensorflow-datasets"
      f" {tfds.__version__} knows nor one prepared in {place}."
      f" {_how_to_prepare(name)}"
    ) from error
  if not builder.info.splits:
    raise ValueError(
      f"tfds:{name} is not prepared: looked in {builder.data_dir}."
      f" {_how_to_prepare(name)}"
    )
  return builder


def _check_features(name, features, image_size):
  """Returns the shape of an image as it will be, and the number of classes."""
  missing = {"image", "label"} - set(features)
  if missing:
    raise ValueError(
      f"tfds:{name} has no feature {' or '.join(sorted(missing))}, it has"
      f" {', '.join(features)}"
    )
  image, label = features["image"], features["label"]
  if image.np_dtype != np.uint8 or len(image.shape) != 3:
    raise ValueError(
      f"tfds:{name}: image must be uint8 [height, width, channels], it is"
      f" {image.np_dtype} {list(image.shape)}"
    )
  num_classes = getattr(label, "num_classes", None)
  if num_classes is None:
    raise ValueError(f"tfds:{name}: label must be a class label, not {label}")
  *size, channels = image.shape
  if image_size is not None:
    size = [image_size, image_size]
  if None in (*size, channels):
    raise ValueError(
      f"tfds:{name}: the images differ in shape, {list(image.shape)};"
      " image_size must say to what size they are scaled and cropped"
    )
  return (*size, channels), num_classes
