"""Sets that TensorFlow Datasets has prepared; images and their labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax.data import splits

# Names of their splits, and ours.
_SPLITS = {
  "train": "train",
  "validation": "valid",
  "valid": "valid",
  "test": "test",
}


def read(
  name: str, *, data_dir: str | None = None, image_size: int | None = None
) -> splits.Dataset:
  """Reads a prepared set into memory; needs no TensorFlow and no network.

  Args:
    name: as in `tfds.builder`: a set, optionally with config and version.
    data_dir: folder of the prepared sets; by default `TFDS_DATA_DIR`, else the
      folder that tensorflow-datasets uses.
    image_size: makes every image square: the shorter side is scaled to this
      size and the centre kept. Needed by sets whose images differ in shape.

  Returns:
    The data set; inputs uint8 [n, height, width, channels], labels int64 [n],
    not checked yet. The fingerprint is the name with config and version.

  Raises:
    ImportError: tensorflow-datasets is not installed.
    ValueError: the set is unknown, is not prepared for random access, or does
      not consist of uint8 images and class labels.
  """
  info, sources = open_splits(name, data_dir=data_dir)
  shape, num_classes = _check_features(name, info.features, image_size)
  return splits.Dataset(
    splits={
      key: _split(source, shape, image_size) for key, source in sources.items()
    },
    num_classes=num_classes,
    fingerprint=f"tfds:{info.full_name}",
  )


def open_splits(
  name: str,
  *,
  data_dir: str | None = None,
  split_names: Mapping[str, str] | None = None,
) -> tuple[Any, dict[str, Sequence[Mapping[str, Any]]]]:
  """Opens a prepared set; needs no TensorFlow and no network.

  Args:
    name: as in `tfds.builder`: a set, optionally with config and version.
    data_dir: see `read`.
    split_names: what the set calls "train", "valid" or "test", where that is
      not one of the usual names; a part of a split, as `train[:1%]`, is fine.

  Returns:
    The `DatasetInfo`, and sequences of examples by the name of the split.

  Raises:
    ImportError: tensorflow-datasets is not installed.
    ValueError: the set is unknown, is not prepared for random access, or lacks
      a split.
  """
  builder: Any = _builder(name, data_dir)
  there = builder.info.splits
  found = {_SPLITS[key]: key for key in there if key in _SPLITS}
  found |= split_names or {}
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
    "Prepare it once, with TensorFlow and a network: pip install"
    f" 'bitnet-jax[tfds]'; tfds build {name} --file_format=array_record"
    " --data_dir=DIR, and pass DIR as data_dir or in TFDS_DATA_DIR"
  )


def _builder(name, data_dir):
  """Returns the builder of a set that is known and prepared."""
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise ImportError(
      f"tfds:{name} needs tensorflow-datasets: pip install 'bitnet-jax[train]'"
    ) from error
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


def _split(source, shape, image_size):
  """Reads all examples of one split."""
  inputs = np.empty((len(source), *shape), np.uint8)
  labels = np.empty(len(source), np.int64)
  for i in range(len(source)):
    example = source[i]
    image = example["image"]
    inputs[i] = image if image_size is None else _resize(image, image_size)
    labels[i] = example["label"]
  return splits.Split(inputs=inputs, labels=labels)


def _resize(image, size):
  """Scales the shorter side of a uint8 [h, w, c] to size, keeps the centre."""
  from PIL import Image, ImageOps

  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
  return np.asarray(picture).reshape(size, size, -1)
