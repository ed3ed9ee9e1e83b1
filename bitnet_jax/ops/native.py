"""Compiles the native kernels: ``python -m bitnet_jax.ops.native``.

A package that was installed where there is a compiler has them already; see
``ops.cpu.library``. This is for those who change them, or got no compiled ones.
"""

import ctypes
import os
import pathlib
import sys
import tempfile

import jax.ffi

from bitnet_jax.files import make_private, sync
from bitnet_jax.ops.cpu import compiling, library
from bitnet_jax.ops.cpu.compiling import NativeError


def build() -> pathlib.Path:
  """Compiles the kernels with ``$CXX`` or g++, and returns their path.

  Raises:
    NativeError: if something is missing, with its name.
    OSError: if the cache folder cannot be written, or if others can write it.
  """
  path = library.location()
  make_private(path.parent)
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    made = pathlib.Path(folder) / path.name
    compiling.compile_to(made, jax.ffi.include_dir())
    if not library.runs_here(ctypes.CDLL(str(made))):
      raise NativeError(
        "this processor lacks AVX-512 with VNNI, which they need"
      )
    _take_place(made, path)
  library.is_there.cache_clear()
  return path


def _take_place(made, path):
  """Moves a library to its place atomically."""
  digest = library.digest_file(made)
  digest.write_text(library.digest(made) + "\n")
  for file, place in ((digest, library.digest_file(path)), (made, path)):
    file.chmod(0o700)
    sync(file)
    os.replace(file, place)
  sync(path.parent)


if __name__ == "__main__":
  try:
    print(build())
  except (NativeError, OSError, RuntimeError) as error:
    sys.exit(f"error: {error}")
