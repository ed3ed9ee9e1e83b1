"""Loads labeled arrays: images or feature vectors."""

from collections.abc import Sequence

import numpy as np

from bitnet_jax.data import splits
from bitnet_jax.data.picture_array import PictureArray
from bitnet_jax.data.sources import (
  class_folders,
  csvfiles,
  folder,
  hf_images,
  parquetfiles,
  registry,
  tfds,
)
from bitnet_jax.data.splits import Dataset, Split

_PICTURES = ("image_size", "image_fit")
_FOLDER = (*_PICTURES, "in_memory")
_TABLES = ("label", "columns", "num_classes")
# Readers with the options that they take.
_OPTIONS = {
  folder.read: _FOLDER,
  tfds.read_images: _PICTURES,
  hf_images.read: (*_PICTURES, "label"),
  csvfiles.read_features: _TABLES,
  parquetfiles.read_features: _TABLES,
}
# By the reader of pictures, what returns the sizes of some of them.
_SIZES = {
  folder.read: lambda path, cuts: folder.sizes(path),
  tfds.read_images: tfds.image_sizes,
  hf_images.read: hf_images.sizes,
}


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  num_classes: int | None = None,
  image_size: int | None = None,
  image_fit: str = "crop",
  in_memory: bool | None = None,
  label: str = "label",
  columns: Sequence[str] = (),
) -> Dataset[Split]:
  """Loads arrays with their labels, see `Cuts` for the splits.

  Args:
    source: `embedded:digits` (uint8 [n, 8, 8, 1], 0 to 16), `embedded:xor`
      (float32 [n, 4]: is exactly one of the first two bits set?), `tfds:NAME`
      (a prepared set), `file:PATH.npz` (see `npz_arrays.read`), `folder:PATH`
      (pictures by class, see `folder.read`), `hf:NAME` (a set of the library
      `datasets`, see `hf_images.read`), or a table `file:PATH.csv` or
      `file:PATH.parquet`, whose rows become float32 [n, features] (see
      `features.read`).
    cuts: for splits that the source lacks.
    num_classes: number of classes; by default what the source says.
    image_size: side of square images, for `folder:`, `tfds:` and `hf:`.
    image_fit: how images become square, see `pictures.read`.
    in_memory: whether the pictures of `folder:` are held in memory, see
      `folder.read`.
    label: column of the classes of a table, or of `hf:`.
    columns: of the features of a table; by default all others.

  Raises:
    ValueError: an argument or something in the data is wrong.
  """
  read, rest = registry.find("arrays", source)
  for key, value in (("num_classes", num_classes), ("image_size", image_size)):
    if value is not None and value < 1:
      raise ValueError(f"{key} must be positive, it is {value}")
  options = dict(
    image_size=image_size,
    image_fit=image_fit,
    in_memory=in_memory,
    label=label,
    columns=tuple(columns),
    num_classes=num_classes,
  )
  options = _options_of(read, source, options)
  found = registry.read(read, rest, cuts, **options)
  tables = {
    key: table.read("inputs", "labels").columns
    for key, table in found.splits.items()
  }
  names = found.class_names.get("labels", ())
  if read is folder.read and num_classes not in (None, len(names)):
    raise ValueError(
      f"num_classes={num_classes}, but {source} has {len(names)} classes:"
      f" {class_folders.listed(names)}; leave num_classes unset"
    )
  num_classes = num_classes or found.num_classes
  num_classes = num_classes or splits.count_classes(tables["train"]["labels"])
  arrays = {
    key: Split(
      inputs=column["inputs"]
      if isinstance(column["inputs"], PictureArray)
      else np.asarray(column["inputs"]),
      labels=splits.check_labels(
        np.asarray(column["labels"]),
        num_classes=num_classes,
        where=f"{source}: y_{key}",
      ),
    )
    for key, column in tables.items()
  }
  return splits.make_dataset(
    arrays,
    cuts,
    source=source,
    num_classes=num_classes,
    class_names=found.names_of("labels", num_classes),
    features=found.features,
    fingerprint=found.fingerprint,
  )


def sizes(source: str, cuts: splits.Cuts) -> list[tuple[int, int]]:
  """Returns height and width of some training pictures of a source.

  Returns none for a source whose arrays cannot be scaled.
  """
  read, rest = registry.find("arrays", source)
  return _SIZES[read](rest, cuts) if read in _SIZES else []


def is_table(source: str) -> bool:
  """Whether a source is a table with a column for each feature."""
  read, _ = registry.find("arrays", source)
  return "columns" in _OPTIONS.get(read, ())


def _options_of(read, source, options):
  """Returns the options of a reader; a ValueError names one it lacks."""
  taken = _OPTIONS.get(read, ())
  kinds = "folder:, tfds: and hf: sources", "folder: sources", "tables"
  defaults = (
    {"image_size": None, "image_fit": "crop"},
    {"in_memory": None},
    {"columns": ()},
  )
  for kind, values in zip(kinds, defaults, strict=True):
    for key, default in values.items():
      if options[key] != default and key not in taken:
        raise ValueError(
          f"{key}={options[key]} applies to {kind} only, not to {source}"
        )
  return {key: options[key] for key in taken}
