"""Reads a folder of pictures with one subfolder for each class."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from bitnet_jax import files
from bitnet_jax.data import splits
from bitnet_jax.data.picture_array import PictureArray, in_threads
from bitnet_jax.data.sources import class_folders, pictures
from bitnet_jax.data.sources.tables import Source, Table

LARGEST_IN_MEMORY = 2**30  # bytes of the arrays of all splits


def read(
  path: str,
  cuts: splits.Cuts,
  *,
  image_size: int | None = None,
  image_fit: str = "crop",
  in_memory: bool | None = None,
) -> Source:
  """Reads pictures; see `class_folders.find` for where they lie.

  The arrays have one channel if all pictures are grey, else three. Pictures
  are sorted by class, then by name.

  Args:
    path: the folder.
    cuts: where splits come from, which does not matter here.
    image_size: side of square arrays; by default the size of the pictures,
      which must be the same for all.
    image_fit: how pictures of another size fit, see `pictures.read`.
    in_memory: whether arrays of all pictures are held in memory, or pictures
      are read from disk for each batch; by default they are held if they take
      at most `LARGEST_IN_MEMORY`. This changes no batch.

  Returns:
    Tables with "inputs", uint8 [n, height, width, channels], an array or a
    `PictureArray`, and "labels", int64 [n]. The fingerprint is a hash of the
    names and contents of the files.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: the folders are not as they should be, a picture cannot be read,
      or sizes differ; names the file or folder.
  """
  where = f"folder:{path}"
  found = class_folders.find(path, where, pictures.ENDINGS)
  _warn_of_single(found, where)
  with pictures.quiet():
    headers = {
      key: [*in_threads(_read_header, split.files, "checking pictures")]
      for key, split in found.splits.items()
    }
    first = found.splits["train"].files[0]
    is_grey = all(h.is_grey for part in headers.values() for h in part)
    shape = _shape(first, image_size, channels=1 if is_grey else 3)
    fit = None if image_size is None else image_fit
    arrays = {
      key: PictureArray(
        files=split.files, example_shape=shape, fit=fit, like=first
      )
      for key, split in found.splits.items()
    }
    if in_memory is None:
      size = sum(array.size for array in arrays.values())
      in_memory = size <= LARGEST_IN_MEMORY
    tables = {}
    for key, array in arrays.items():
      inputs = array.in_memory() if in_memory else array.prepared()
      columns = {"inputs": inputs, "labels": found.splits[key].labels}
      tables[key] = Table(columns=columns, name=f"{where} {key}")
  return Source(
    splits=tables,
    num_classes=len(found.classes),
    class_names={"labels": found.classes},
    fingerprint=_fingerprint(found, headers),
  )


def sizes(path: str, *, most: int = 256) -> list[tuple[int, int]]:
  """Returns height and width of training pictures of a folder, see `read`.

  Args:
    path: the folder.
    most: of this many pictures at most, which are spread evenly.
  """
  found = class_folders.find(path, f"folder:{path}", pictures.ENDINGS)
  paths = found.splits["train"].files
  with pictures.quiet():
    some = paths[:: -(-len(paths) // most)]
    return [*in_threads(_size_of, some, "checking pictures")]


def _size_of(file: pathlib.Path) -> tuple[int, int]:
  with pictures.opened(file) as picture:
    return pictures.size_of(picture)


@dataclasses.dataclass(frozen=True, slots=True)
class _Header:
  """What is known of a picture before it is decoded.

  Attributes:
    digest: SHA-256 of the file, in hex digits.
    is_grey: whether it is stored without colours.
  """

  digest: str
  is_grey: bool


def _read_header(file: pathlib.Path) -> _Header:
  """Reads the header of a picture, and hashes the file."""
  with pictures.opened(file) as picture:
    is_grey = pictures.is_grey(picture)
  with files.open_regular(file) as stream:
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
  return _Header(digest, is_grey)


def _shape(
  first: pathlib.Path, image_size: int | None, *, channels: int
) -> tuple[int, int, int]:
  """Returns the shape of all arrays: that of the first picture, unless set."""
  if image_size is not None:
    return (image_size, image_size, channels)
  with pictures.opened(first) as picture:
    width, height = pictures.upright(picture).size
  return (height, width, channels)


def _fingerprint(
  found: class_folders.Found, headers: Mapping[str, Sequence[_Header]]
) -> str:
  """Returns a hash of the names and contents of all files."""
  texts = []
  for key, split in found.splits.items():
    texts.append(key)
    for name, header in zip(split.names(), headers[key], strict=True):
      texts += [name, header.digest]
  return f"sha256:{splits.digest(texts)}"


def _warn_of_single(found: class_folders.Found, where: str) -> None:
  """Logs which classes have a single training picture."""
  counts = np.bincount(found.splits["train"].labels)
  single = [found.classes[i] for i in np.flatnonzero(counts == 1)]
  if single:
    logging.warning(
      "%s: %d of %d classes have only one training picture, so that none can be"
      " cut off for valid or test: %s",
      where,
      len(single),
      len(found.classes),
      class_folders.listed(single),
    )
