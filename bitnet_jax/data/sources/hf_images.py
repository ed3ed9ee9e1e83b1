"""Reads pictures and classes of data sets of the library `datasets`."""

import concurrent.futures
import hashlib
import io
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from bitnet_jax import choices, files
from bitnet_jax.data import classes, splits
from bitnet_jax.data.sources import hf_sets, pictures
from bitnet_jax.data.sources.hf import Column
from bitnet_jax.data.sources.tables import Source, Table

_AT_ONCE = 256  # pictures whose files are in memory


def read(
  name: str,
  cuts: splits.Cuts,
  *,
  image_size: int | None = None,
  image_fit: str = "crop",
  label: str = "label",
) -> Source:
  """Reads the pictures of a set into memory.

  The arrays have one channel if all pictures are grey, else three.

  Args:
    name: see `hf_sets.open_set`.
    cuts: see `hf_sets.open_set`.
    image_size: side of square arrays; by default the size of the pictures,
      which must be the same for all.
    image_fit: how pictures of another size fit, see `pictures.read`.
    label: column of the classes; where there is none of this name, the only
      column of class labels.

  Returns:
    Tables with "inputs", uint8 [n, height, width, channels], and "labels",
    int32 [n]. Splits without labels are left out, which is logged. The
    fingerprint is a hash of the pictures as they are stored, and the labels.

  Raises:
    FileNotFoundError: see `hf_sets.open_set`.
    ImportError: see `hf_sets.open_set`.
    ValueError: the set lacks pictures or classes, one of its rows is wrong, or
      pictures differ in size.
  """
  found = hf_sets.open_set(name, cuts)
  where = f"hf:{name}"
  image, label = _choose_columns(where, found["train"].features, label)
  labels, names = _labels(where, found, label)
  stored = {key: _Stored(f"{where} {key}", found[key], image) for key in labels}
  with pictures.quiet():
    headers = {key: [*split.map(_header)] for key, split in stored.items()}
    is_grey = all(grey for part in headers.values() for _, _, grey in part)
    size = headers["train"][0][1] if headers["train"] else (1, 1)
    if image_size is not None:
      size = (image_size, image_size)
    shape = (*size, 1 if is_grey else 3)
    fit = None if image_size is None else image_fit
    inputs = {key: _arrays(split, shape, fit) for key, split in stored.items()}
  digests = [
    f"{key} {digest} {own}"
    for key, part in sorted(headers.items())
    for (digest, _, _), own in zip(part, labels[key].tolist(), strict=True)
  ]
  return Source(
    splits={
      key: Table(
        columns={"inputs": inputs[key], "labels": labels[key]},
        name=f"{where} {key}",
        unit="row",
        first=0,
      )
      for key in labels
    },
    num_classes=len(names),
    class_names={"labels": names},
    fingerprint=f"sha256:{splits.digest([*names, *digests])}",
  )


def sizes(
  name: str, cuts: splits.Cuts, *, most: int = 256
) -> list[tuple[int, int]]:
  """Returns height and width of training pictures of a set, see `read`.

  Args:
    name: see `hf_sets.open_set`.
    cuts: see `hf_sets.open_set`.
    most: of this many pictures at most, which are spread evenly.
  """
  train = hf_sets.open_set(name, cuts)["train"]
  image = _picture_column(f"hf:{name}", train.features)
  if len(train) > most:
    train = train.select(range(0, len(train), -(-len(train) // most)))
  with pictures.quiet():
    headers = _Stored(f"hf:{name} train", train, image).map(_header)
    return [size for _, size, _ in headers]


def _picture_column(where, features: Mapping[str, Any]) -> str:
  """Returns the name of the column of pictures."""
  images = [k for k, f in features.items() if type(f).__name__ == "Image"]
  if len(images) != 1:
    raise ValueError(
      f"{where} has {len(images) or 'no'} columns of pictures (features Image),"
      f" there must be one; it has {', '.join(features)}"
    )
  return images[0]


def _choose_columns(where, features: Mapping[str, Any], label):
  """Returns the columns of pictures and of classes."""
  image = _picture_column(where, features)
  named = [k for k, f in features.items() if hasattr(f, "names")]
  if label not in features and len(named) == 1:
    (label,) = named
  if label not in features:
    listed = [k for k in features if k != image]
    raise ValueError(
      f"{where} has no column {label}, it has {', '.join(listed) or 'none'};"
      f" data.label names that of the classes{choices.nearest(label, listed)}"
    )
  return image, label


def _labels(where, found, label):
  """Returns the labels of the splits that have some, and the classes."""
  names = {
    k: getattr(d.features[label], "names", None) for k, d in found.items()
  }
  tables = {
    key: Table(
      columns={label: [*Column(dataset, label)]},
      name=f"{where} {key}",
      unit="row",
      first=0,
    )
    for key, dataset in found.items()
  }
  own = names["train"]
  if any(other != own for other in names.values()):
    raise ValueError(
      f"{where}: the splits have other classes in {label}: "
      + "; ".join(f"{key} {', '.join(n or ())}" for key, n in names.items())
    )
  labels = {}
  for key, table in tables.items():
    values = table.columns[label]
    if len(values) and all(value in (None, -1) for value in values):
      logging.info("Left %s of %s out: it has no labels", key, where)
      continue
    if own:
      values = [own[v] if v not in (None, -1) else None for v in values]
    labels[key] = Table(
      columns={label: values}, name=table.name, unit="row", first=0
    )
  if "train" not in labels:
    raise ValueError(f"{where}: train has no labels in {label}")
  train = labels["train"].columns[label]
  known = tuple(own or classes.sorted_names(train))
  if len(known) < 2:
    raise ValueError(
      f"{where}: {label} has only the class {', '.join(known)}; there must be"
      " two at least"
    )
  classes.warn(train, where)
  indices = {k: classes.indices(t, label, known) for k, t in labels.items()}
  return indices, known


class _Stored:
  """The pictures of a split as they are stored, read in parts."""

  def __init__(self, where: str, dataset: Any, column: str):
    self.where = where
    self._column = Column(dataset, column)

  def __len__(self) -> int:
    return len(self._column)

  def map(self, function: Callable[[Any], Any]) -> Iterator[Any]:
    """Yields what a function returns for the file of each row, in order."""
    rows = enumerate(self._column)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
      while part := list(itertools.islice(rows, _AT_ONCE)):
        yield from threads.map(lambda row: function(self._open(*row)), part)

  def _open(self, row, value):
    """Returns the file of a row; its name is for messages."""
    where = f"{self.where}, row {row}"
    if value is None:
      raise ValueError(f"{where} has no picture")
    data = value["bytes"]
    if data is None:
      path = pathlib.Path(value["path"])
      data = files.read_bytes(path, most=pictures.LARGEST_FILE)
    file = _File(data)
    file.name = where
    return file


class _File(io.BytesIO):
  """Bytes with a name."""

  name: str


def _header(file):
  """Returns digest, height and width, and whether a picture is grey."""
  digest = hashlib.sha256(file.getbuffer()).hexdigest()
  with pictures.opened(file) as picture:
    return digest, pictures.size_of(picture), pictures.is_grey(picture)


def _arrays(split, shape, fit):
  """Returns the pictures of a split, uint8 [n, height, width, channels]."""

  def decode(file):
    try:
      return pictures.read(file, shape, fit=fit)
    except pictures.OtherSizeError as error:
      raise ValueError(
        f"the first picture has {shape[1]} x {shape[0]} pixels, but {file.name}"
        f" has {error.size[0]} x {error.size[1]}; data.image_size makes them"
        " all one size, such as --config.data.image_size=64"
      ) from error

  inputs = np.empty((len(split), *shape), np.uint8)
  for row, array in enumerate(split.map(decode)):
    inputs[row] = array
  return inputs
