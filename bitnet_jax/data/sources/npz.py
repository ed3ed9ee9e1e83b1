"""Reads untrusted `.npz` files of NumPy arrays within limits."""

import contextlib
import hashlib
import lzma
import math
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np

from bitnet_jax import files

LARGEST_ARCHIVE = 2**34  # bytes of a file
# Most bytes of an unpacked file: this number, or this multiple of its size.
ALWAYS_UNPACKED, MOST_GROWTH = 2**26, 100

# Errors of NumPy, zipfile and the decompressors for damaged files.
_READ_ERRORS = (
  EOFError,
  IndexError,
  KeyError,
  MemoryError,
  NotImplementedError,
  OSError,
  OverflowError,
  RecursionError,
  RuntimeError,  # of a file with a password
  SyntaxError,
  TypeError,
  ValueError,
  lzma.LZMAError,
  tokenize.TokenError,
  zipfile.BadZipFile,
  zlib.error,
)
# Bytes to decompress at a time; the output of each step is bounded by them.
_PART = 4096
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
_MAGIC = b"\x93NUMPY"
_KINDS = "biufcUS"  # numbers, truths and strings


class Archive(Mapping[str, np.ndarray]):
  """The arrays of an open file by name, read lazily.

  Attributes:
    file: the path of the file, for messages.
  """

  def __init__(self, file: pathlib.Path, stream: BinaryIO):
    """Reads the names; a ValueError names a file beyond the limits."""
    self.file = file
    try:
      if stream.read(len(_MAGIC)) == _MAGIC:
        raise ValueError("it is not a .npz file but a single array")
      size = stream.seek(0, 2)
      self._archive = zipfile.ZipFile(stream)
      infos = self._archive.infolist()
      files.check_unpacked(
        sum(info.file_size for info in infos),
        most=max(ALWAYS_UNPACKED, MOST_GROWTH * size),
      )
      self._infos = {i.filename.removesuffix(".npy"): i for i in infos}
      if len(self._infos) < len(infos):
        names = sorted(info.filename.removesuffix(".npy") for info in infos)
        raise ValueError(f"a member appears twice: {', '.join(names)}")
    except _READ_ERRORS as error:
      raise ValueError(
        f"{file} is not a complete .npz file: {error!s:.200}"
      ) from error

  def __len__(self) -> int:
    return len(self._infos)

  def __iter__(self) -> Iterator[str]:
    return iter(self._infos)

  def __contains__(self, name: object) -> bool:
    return name in self._infos

  def __getitem__(self, name: str) -> np.ndarray:
    """Reads an array of numbers, booleans or strings.

    Raises:
      KeyError: there is no such member.
      ValueError: it cannot be read; names file and member.
    """
    info = self._infos[name]
    try:
      with self._archive.open(info) as stream:
        if stream.read(len(_MAGIC)) == _MAGIC:
          stream.seek(0)
          return _read_array(stream, info.file_size)
    except _READ_ERRORS as error:
      raise ValueError(
        f"{self.file}: cannot read {name}: {error!s:.200}"
      ) from error
    raise ValueError(f"{self.file}: {name} is not an array")


@contextlib.contextmanager
def open_archive(file: pathlib.Path) -> Iterator[tuple[Archive, str]]:
  """Opens a file; yields its arrays and its fingerprint, a SHA-256."""
  with files.open_regular(file, most=LARGEST_ARCHIVE) as stream:
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0)
    yield Archive(file, stream), f"sha256:{digest}"


def check_members(
  members: Mapping[str, np.ndarray], *needed: str, where: str, hint: str = ""
) -> None:
  """Raises a ValueError that lists missing and existing members."""
  missing = [name for name in needed if name not in members]
  if missing:
    raise ValueError(
      f"{where} lacks {', '.join(missing)}: it holds"
      f" {', '.join(members) or 'nothing'}{hint}"
    )


def _read_array(stream, size):
  """Reads an array of a number of bytes, including its header."""
  version = np.lib.format.read_magic(stream)
  if version not in _HEADERS:
    raise ValueError(f"the version of its format is {version}")
  shape, is_fortran, dtype = _HEADERS[version](stream)
  if dtype.hasobject:
    raise ValueError("Object arrays are not read: they can run anything")
  if dtype.kind not in _KINDS or not dtype.itemsize or dtype.subdtype:
    raise ValueError(f"it is {dtype}, not numbers, truths or strings")
  count = size - stream.tell()
  if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != count:
    raise ValueError(f"it is {dtype} {list(shape)}, but has {count} bytes")
  data = bytearray()
  while part := stream.read(_PART):
    data += part
  order = "F" if is_fortran else "C"
  return np.frombuffer(data, dtype).reshape(shape, order=order)
