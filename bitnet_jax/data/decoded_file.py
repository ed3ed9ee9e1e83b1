"""An array of decoded pictures in a temporary file."""

import os
import pathlib
import shutil
import tempfile
import weakref

import numpy as np

_MOST = 0.5  # of the free space of a disk


class DecodedFile:
  """An array [n, *shape] on disk, which ends with the process.

  The file has no name, so that nothing is left however the process ends. Its
  rows take no memory until they are read, except where the system has some to
  spare. Several threads may read and write at once.
  """

  def __init__(self, rows: int, shape: tuple[int, ...], dtype: np.dtype):
    """Reserves the space; an OSError says why it cannot be."""
    self._shape, self._dtype = shape, dtype
    self._size = int(np.prod(shape)) * dtype.itemsize
    folder = temporary_folder()
    free = shutil.disk_usage(folder).free
    if rows * self._size > _MOST * free:
      raise OSError(f"{folder} has {free} free bytes only")
    self._file, name = tempfile.mkstemp(prefix="bitnet-jax-", dir=folder)
    weakref.finalize(self, os.close, self._file)
    os.unlink(name)
    os.posix_fallocate(self._file, 0, rows * self._size)

  def write(self, row: int, values: np.ndarray) -> None:
    """Writes a row."""
    data = memoryview(values.tobytes())
    start = row * self._size
    while data:
      written = os.pwrite(self._file, data, start)
      data, start = data[written:], start + written

  def read(self, row: int) -> np.ndarray:
    """Returns a row that was written."""
    data = os.pread(self._file, self._size, row * self._size)
    return np.frombuffer(data, self._dtype).reshape(self._shape)


def temporary_folder() -> pathlib.Path:
  """Returns a folder for large temporary files, by `TMPDIR` if it is set.

  `/tmp` is memory on many systems, `/var/tmp` is not.
  """
  named, large = os.environ.get("TMPDIR"), pathlib.Path("/var/tmp")
  if not named and os.access(large, os.W_OK):
    return large
  return pathlib.Path(tempfile.gettempdir())
