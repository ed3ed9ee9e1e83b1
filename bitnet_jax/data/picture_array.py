"""An array of pictures that are decoded when they are indexed."""

import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from absl import logging

from bitnet_jax.data import progress
from bitnet_jax.data.decoded_file import DecodedFile
from bitnet_jax.data.sources import pictures

_AT_ONCE = 32  # items that a thread takes at a time
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PictureArray:
  """Pictures in files, indexed like a uint8 array [n, height, width, channels].

  Attributes:
    files: paths of the pictures.
    example_shape: height, width and channels.
    fit: see `pictures.read`.
    like: the picture that the shape comes from, if `fit` is `None`.
    sums: int64 [n, 2, channels], sums of the pixels of each picture, and of
      their squares; empty until `prepared`.
    decoded: rows of the decoded pictures in a temporary file, if there is one.
    decoded_file: that file.
  """

  files: Sequence[pathlib.Path]
  example_shape: tuple[int, int, int]
  fit: str | None
  like: pathlib.Path
  sums: np.ndarray = dataclasses.field(
    default_factory=lambda: np.empty((0, 2, 0), np.int64)
  )
  decoded: np.ndarray | None = None
  decoded_file: DecodedFile | None = None

  dtype = np.dtype(np.uint8)

  @property
  def shape(self) -> tuple[int, ...]:
    """As of the array."""
    return (len(self.files), *self.example_shape)

  @property
  def ndim(self) -> int:
    """As of the array."""
    return 4

  @property
  def size(self) -> int:
    """As of the array, which is its number of bytes as well."""
    return int(np.prod(self.shape))

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, indices: slice | np.ndarray) -> np.ndarray:
    """Returns pictures as a new array; several threads may do so at once.

    Raises:
      FileNotFoundError: a picture is not there any more.
      ValueError: a picture is damaged, or has another size; names the file.
    """
    rows = np.arange(len(self))[indices]
    images = np.empty((len(rows), *self.example_shape), self.dtype)
    if self.decoded is not None and self.decoded_file is not None:
      places = self.decoded[rows].tolist()
      for image, place in zip(images, places, strict=True):
        image[:] = self.decoded_file.read(place)
      return images
    try:
      for image, row in zip(images, rows.tolist(), strict=True):
        image[:] = self._read(row)
    except (FileNotFoundError, ValueError) as error:
      # All pictures were read once before.
      raise type(error)(f"{error}; it changed after the start") from error
    return images

  def take(self, rows: np.ndarray) -> "PictureArray":
    """Returns the pictures where `rows`, bool [n], is true."""
    return dataclasses.replace(
      self,
      files=[self.files[i] for i in np.flatnonzero(rows).tolist()],
      sums=self.sums[rows] if len(self.sums) else self.sums,
      decoded=None if self.decoded is None else self.decoded[rows],
    )

  def in_memory(self) -> np.ndarray:
    """Returns all pictures as an array."""
    images = np.empty(self.shape, self.dtype)

    def read(row: int) -> None:
      images[row] = self._read(row)

    for _ in in_threads(read, range(len(self)), "reading pictures"):
      pass
    return images

  def prepared(self) -> "PictureArray":
    """Reads every picture once; returns an array that has their `sums`.

    The pictures are decoded into a temporary file if there is room for them.
    """
    decoded = self._make_file()
    sums = np.empty((len(self), 2, self.example_shape[2]), np.int64)

    def measure(row: int) -> None:
      image = self._read(row)
      if decoded is not None:
        decoded.write(row, image)
      pixels = image.reshape(-1, self.example_shape[2]).astype(np.int64)
      sums[row] = pixels.sum(axis=0), (pixels**2).sum(axis=0)

    for _ in in_threads(measure, range(len(self)), "reading pictures"):
      pass
    if decoded is None:
      return dataclasses.replace(self, sums=sums)
    rows = np.arange(len(self))
    return dataclasses.replace(
      self, sums=sums, decoded=rows, decoded_file=decoded
    )

  def _make_file(self) -> DecodedFile | None:
    """Returns a file for the decoded pictures, or logs why there is none."""
    try:
      return DecodedFile(len(self), self.example_shape, self.dtype)
    except (
      AttributeError,
      OSError,
    ) as error:  # Not all systems have all calls.
      logging.warning(
        "pictures are decoded again for each batch, as there is no room for %d"
        " bytes in a temporary file: %s (TMPDIR names its folder)",
        self.size,
        error,
      )
      return None

  def sums_from(self, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns sums of (pixel - shift) and of its squares, float64 [channels].

    They are exact for integers `shift`, [channels].
    """
    shift = shift.astype(np.int64)
    count = self.size // self.example_shape[2]
    total, squares = self.sums.sum(axis=0)
    squares = squares - 2 * shift * total + count * shift**2
    return (total - count * shift).astype(float), squares.astype(float)

  def _read(self, row: int) -> np.ndarray:
    """Returns a picture; names two of different sizes in an error."""
    file = self.files[row]
    try:
      return pictures.read(file, self.example_shape, fit=self.fit)
    except pictures.OtherSizeError as error:
      height, width, _ = self.example_shape
      raise ValueError(
        f"{self.like} has {width} x {height} pixels, but {file} has"
        f" {error.size[0]} x {error.size[1]}; data.image_size makes them all"
        " one size, such as --config.data.image_size=64"
      ) from error


def in_threads(
  function: Callable[[_T], _R], items: Sequence[_T], what: str
) -> Iterator[_R]:
  """Yields what a function returns for each item, in order.

  The first error in that order is raised.

  Args:
    function: called in threads.
    items: its arguments.
    what: what it does, for a progress bar.
  """

  def call(start: int) -> list[_R]:
    return [function(item) for item in items[start : start + _AT_ONCE]]

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    parts = threads.map(call, range(0, len(items), _AT_ONCE))
    results = itertools.chain.from_iterable(parts)
    yield from progress.bar(results, what=what, total=len(items))
