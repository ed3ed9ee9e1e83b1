"""Compiles the optional kernels: ``python -m bitnet_jax.ops.native``.

Compile them once for each version of jaxlib; see ``ops.cpu.library``.
"""

import ctypes
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import jax.ffi

from bitnet_jax.files import make_private, sync
from bitnet_jax.ops.cpu import library


class NativeError(Exception):
  """The kernels cannot be compiled, or do not run here."""


def build() -> pathlib.Path:
  """Compiles the kernels with ``$CXX`` or g++, and returns their path.

  Raises:
    NativeError: if something is missing, with its name.
    OSError: if the cache folder cannot be written, or if others can write it.
  """
  path = library.location()
  make_private(path.parent)
  compiler = os.environ.get("CXX") or "g++"
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    made = pathlib.Path(folder) / path.name
    include = f"-I{jax.ffi.include_dir()}"
    sources = [str(library.FOLDER / name) for name in library.SOURCES]
    command = [*shlex.split(compiler), *library.FLAGS, include, *sources]
    command += ["-o", str(made)]
    try:
      subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
      raise NativeError(
        f"there is no compiler {compiler!r}; set CXX to one of C++17"
      ) from error
    except subprocess.CalledProcessError as error:
      lines = error.stderr.splitlines() or [f"status {error.returncode}"]
      first = next((line for line in lines if "error" in line), lines[-1])
      raise NativeError(f"{compiler} failed: {first}") from error
    if not library.run_here(ctypes.CDLL(str(made))):
      raise NativeError(
        "this processor lacks AVX-512 with VNNI and VBMI, which they need"
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
