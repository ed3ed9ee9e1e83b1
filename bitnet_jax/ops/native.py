"""Compiles the optional kernels: ``python -m bitnet_jax.ops.native``.

Once for a version of jaxlib; see ``ops.kernels``.
"""

import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile

import jax.ffi

from bitnet_jax.ops import kernels

_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-w")


class NativeError(Exception):
  """The kernels cannot be compiled, or do not run here."""


def build() -> pathlib.Path:
  """Compiles the kernels with ``$CXX`` or g++, and returns where they are.

  Raises:
    NativeError: saying what is missing.
  """
  path = kernels.library()
  path.parent.mkdir(parents=True, exist_ok=True)
  compiler = os.environ.get("CXX", "g++")
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    made = pathlib.Path(folder) / path.name
    include = f"-I{jax.ffi.include_dir()}"
    sources = [str(kernels.FOLDER / name) for name in kernels.SOURCES]
    command = [compiler, *_FLAGS, include, *sources, "-o", str(made)]
    try:
      subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
      raise NativeError(
        f"there is no compiler {compiler!r}; set CXX to one of C++17"
      ) from error
    except subprocess.CalledProcessError as error:
      lines = [line for line in error.stderr.splitlines() if "error" in line]
      raise NativeError(f"{compiler} failed: {lines[:1]}") from error
    if not kernels.run_here(ctypes.CDLL(str(made))):
      raise NativeError(
        "this processor lacks AVX-512 with VNNI and VBMI, which they need"
      )
    os.replace(made, path)
  kernels.is_there.cache_clear()
  return path


if __name__ == "__main__":
  try:
    print(build())
  except (NativeError, OSError, RuntimeError) as error:
    sys.exit(f"error: {error}")
