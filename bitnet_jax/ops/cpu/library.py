"""The library of compiled kernels: where it is, and whether it may be loaded.

``python -m bitnet_jax.ops.native`` compiles it and puts it into the cache
folder, from where every program takes it. Without it, or on processors that
lack its instructions (AVX-512 with VNNI and VBMI), XLA does it all: products of
integers with the same results, those of float32 and norms with the terms added
up in another order.
"""

import ctypes
import functools
import hashlib
import pathlib
from typing import Any

import jax
import jax.ffi
import jaxlib.version
from absl import logging

from bitnet_jax.files import cache_folder, check_ours

FOLDER = pathlib.Path(__file__).parent
SOURCES = ("packed_dot.cc", "rows.cc", "ternary_dot.cc", "transposed_dot.cc")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-w")
_HEADER = "tiles.h"
TARGETS = (
  "bitnet_packed_dot",
  "bitnet_ternary_dot",
  "bitnet_ternary_conv_transpose",
  "bitnet_transposed_dot",
  "bitnet_transposed_conv",
  "bitnet_quantize_rows",
  "bitnet_norm_gradients",
)
_registered: set[str] = set()


def location() -> pathlib.Path:
  """Returns where the compiled kernels are, or would be."""
  digest = hashlib.sha256(
    " ".join((jaxlib.version.__version__, *FLAGS)).encode()
  )
  for name in (*SOURCES, _HEADER):
    digest.update((FOLDER / name).read_bytes())
  name = f"kernels-{digest.hexdigest()[:12]}.so"
  return cache_folder() / "native" / name


def digest_file(path: pathlib.Path) -> pathlib.Path:
  """Returns where the SHA-256 of the compiled kernels is."""
  return path.with_name(f"{path.name}.sha256")


def digest(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file, in hexadecimal digits."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path):
  """Returns the path of a library that may be loaded.

  Raises:
    OSError: if another user can have written it, or if it is not whole: to run
      a part of a library ends the process.
  """
  path = check_ours(path)
  recorded = check_ours(digest_file(path))
  if digest(path) != recorded.read_text().strip():
    raise OSError(f"{path} is not the file that {recorded.name} describes")
  return path


def run_here(loaded: Any) -> bool:
  """Whether this processor has the instructions of a library."""
  return bool(loaded.bitnet_runs_here())


@functools.cache
def is_there() -> bool:
  """Whether the kernels are compiled and run here; if so, JAX knows them.

  They are used only if no other user can have written them, and if they are
  the file that was compiled; else a warning says why not.
  """
  try:
    path = location()
    if not path.exists():
      return False
  except (OSError, RuntimeError):
    return False  # No home.
  try:
    path = _checked(path)
  except (OSError, ValueError) as error:
    logging.warning(
      "The compiled kernels are not used: %s. To compile them again, run"
      " python -m bitnet_jax.ops.native",
      error,
    )
    return False
  try:
    loaded: Any = ctypes.CDLL(str(path))
    handlers = {target: getattr(loaded, target) for target in TARGETS}
    if not run_here(loaded):
      return False
  except (OSError, AttributeError):
    return False  # Of another kind of processor, or no such library.
  # JAX takes one library in a process, and any of these sources will do.
  for target in handlers.keys() - _registered:
    handler = jax.ffi.pycapsule(handlers[target])
    jax.ffi.register_ffi_target(target, handler, platform="cpu")
    _registered.add(target)
  return True
