"""The optional kernel in C++ for packed products on CPUs.

``python -m bitnet_jax.ops.native`` compiles it, once for a version of jaxlib,
and puts it into the cache folder, from where every program takes it. Without
it, or on processors that lack its instructions (AVX-512 with VNNI and VBMI),
products are those of XLA, with the same results.
"""

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.ffi
import jax.numpy as jnp
import jaxlib.version
from jaxtyping import Array, Int8, Int32, UInt8

from bitnet_jax.files import cache_folder

_SOURCE = pathlib.Path(__file__).with_name("packed_dot.cc")
_TARGET = "bitnet_packed_dot"
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-w")
_portable: contextvars.ContextVar[bool] = contextvars.ContextVar(
  "portable", default=False
)


class NativeError(Exception):
  """The kernel cannot be compiled, or does not run here."""


def library() -> pathlib.Path:
  """Returns where the compiled kernel is, or would be."""
  digest = hashlib.sha256(_SOURCE.read_bytes())
  digest.update(jaxlib.version.__version__.encode())
  name = f"packed_dot-{digest.hexdigest()[:12]}.so"
  return cache_folder() / "native" / name


def build() -> pathlib.Path:
  """Compiles the kernel with ``$CXX`` or g++, and returns where it is.

  Raises:
    NativeError: saying what is missing.
  """
  path = library()
  path.parent.mkdir(parents=True, exist_ok=True)
  compiler = os.environ.get("CXX", "g++")
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    made = pathlib.Path(folder) / path.name
    include = f"-I{jax.ffi.include_dir()}"
    command = [compiler, *_FLAGS, include, str(_SOURCE), "-o", str(made)]
    try:
      subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
      raise NativeError(
        f"there is no compiler {compiler!r}; set CXX to one of C++17"
      ) from error
    except subprocess.CalledProcessError as error:
      lines = [line for line in error.stderr.splitlines() if "error" in line]
      raise NativeError(f"{compiler} failed: {lines[:1]}") from error
    if not _runs_here(ctypes.CDLL(str(made))):
      raise NativeError(
        "this processor lacks AVX-512 with VNNI and VBMI, which it needs"
      )
    os.replace(made, path)
  is_there.cache_clear()
  return path


def _runs_here(loaded: Any) -> bool:
  return bool(loaded.bitnet_runs_here())


@functools.cache
def is_there() -> bool:
  """Whether the kernel is compiled and runs here; if so, JAX knows it."""
  try:
    path = library()
    if not path.exists():
      return False
    loaded: Any = ctypes.CDLL(str(path))
  except (OSError, RuntimeError):  # No home, or of another kind of processor.
    return False
  if not _runs_here(loaded):
    return False
  handler = jax.ffi.pycapsule(loaded.bitnet_packed_dot)
  jax.ffi.register_ffi_target(_TARGET, handler, platform="cpu")
  return True


@contextlib.contextmanager
def portable() -> Iterator[None]:
  """Traces programs without kernels, for machines that have none."""
  token = _portable.set(True)
  try:
    yield
  finally:
    _portable.reset(token)


def is_portable() -> bool:
  """Whether programs that are traced now shall run on any machine."""
  return _portable.get()


def may_be_used() -> bool:
  """Whether programs that are traced now may use the kernel."""
  return not is_portable() and is_there()


def packed_dot(
  x: Int8[Array, "m k"], data: UInt8[Array, "quads n"]
) -> Int32[Array, "m n"]:
  """Multiplies rows with packed codes, exactly, if ``is_there()``.

  Args:
    x: as many values in a row as there are codes in a column, or up to three
      fewer where the last byte is not full.
    data: of ``Packed`` in the layout "quad", packed along its first axis.
  """
  quads, n = data.shape
  x = jnp.pad(x, ((0, 0), (0, 4 * quads - x.shape[1])))
  call = jax.ffi.ffi_call(
    _TARGET,
    jax.ShapeDtypeStruct((x.shape[0], n), jnp.int32),
    vmap_method="sequential",
  )
  return call(x, data)


if __name__ == "__main__":
  try:
    print(build())
  except (NativeError, OSError, RuntimeError) as error:
    sys.exit(f"error: {error}")
