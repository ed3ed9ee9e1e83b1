"""The library of native kernels: where it is, and whether it may be loaded.

``pip install`` compiles it where there is a compiler, into the folder
``compiled`` beside this file; a wheel that was built so has it, too.
``python -m bitnet_jax.ops.native`` compiles it into the cache folder, from
where every program takes it first. Without it, or on processors that lack its
instructions (AVX-512 with VNNI), XLA does it all: products of integers with the
same results, those of float32 and norms with the terms added up in another
order.
"""

import ctypes
import functools
import hashlib
import os
import pathlib
import re
from typing import Any

import jax
import jax.ffi
from absl import logging

from bitnet_jax.files import cache_folder, check_ours
from bitnet_jax.ops.cpu import compiling

VARIABLE = "BITNET_JAX_NATIVE"  # "0" leaves the kernels out
TARGETS = (
  "bitnet_packed_dot",
  "bitnet_ternary_dot",
  "bitnet_ternary_conv_transpose",
  "bitnet_transposed_dot",
  "bitnet_transposed_conv",
  "bitnet_quantize_rows",
  "bitnet_norm_gradients",
  "bitnet_attend_cached",
)
_registered: set[str] = set()


def location() -> pathlib.Path:
  """Returns where the kernels are that this user compiled, or would be."""
  return cache_folder() / "native" / compiling.file_name()


def packaged() -> pathlib.Path:
  """Returns where the kernels are that came with the package, if they did."""
  return compiling.FOLDER / compiling.COMPILED / compiling.file_name()


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


def runs_here(loaded: Any) -> bool:
  """Whether this processor has the instructions of a library."""
  return bool(loaded.bitnet_runs_here())


def _is_known_to_jax(loaded: Any) -> bool:
  """Whether the installed jaxlib takes kernels of the headers of a library.

  It takes those of its own version and of earlier ones.
  """
  text = pathlib.Path(
    jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h"
  ).read_text(encoding="utf-8")
  found = re.findall(r"#define XLA_FFI_API_(?:MAJOR|MINOR) (\d+)", text)
  major, minor = map(int, found)
  return (
    loaded.bitnet_ffi_major() == major and loaded.bitnet_ffi_minor() <= minor
  )


def is_wanted() -> bool:
  """Whether ``$BITNET_JAX_NATIVE`` leaves the kernels in.

  Raises:
    ValueError: if it is neither "0" nor "1".
  """
  value = os.environ.get(VARIABLE) or "1"
  if value not in ("0", "1"):
    raise ValueError(
      f"{VARIABLE} is {value!r}; it must be 1, for native kernels where there"
      " are some, or 0"
    )
  return value == "1"


def describe() -> str:
  """Returns whether there are kernels, and else what to do, in a line."""
  if is_there():
    return "native kernels"
  if not is_wanted():
    return f"no native kernels ({VARIABLE}=0)"
  command = "python -m bitnet_jax.ops.native"
  return f"no native kernels ({command} compiles them, or says why not)"


@functools.cache
def is_there() -> bool:
  """Whether there are kernels that run here; if so, JAX knows them.

  Those in the cache folder are used only if no other user can have written
  them, and if they are the file that was compiled; else a warning says why not.
  """
  if not is_wanted():
    return False
  loaded = _load_own() or _load(packaged())
  if loaded is None:
    return False
  # JAX takes one library in a process, and any of these sources will do.
  for target in {*TARGETS} - _registered:
    handler = jax.ffi.pycapsule(getattr(loaded, target))
    jax.ffi.register_ffi_target(target, handler, platform="cpu")
    _registered.add(target)
  return True


def _load_own() -> Any:
  """Loads the library in the cache folder; ``None`` if that may not be."""
  try:
    path = location()
    if not path.exists():
      return None
  except (OSError, RuntimeError):
    return None  # No home.
  try:
    path = _checked(path)
  except (OSError, ValueError) as error:
    logging.warning(
      "The compiled kernels are not used: %s. To compile them again, run"
      " python -m bitnet_jax.ops.native",
      error,
    )
    return None
  return _load(path)


def _load(path: pathlib.Path) -> Any:
  """Loads a library; ``None`` if it is not there or cannot run here."""
  if not path.exists():
    return None
  try:
    loaded: Any = ctypes.CDLL(str(path))
    for target in TARGETS:
      getattr(loaded, target)
    if not runs_here(loaded):
      return None
    if not _is_known_to_jax(loaded):
      logging.warning(
        "The kernels in %s were compiled for a newer jaxlib, and are not used;"
        " to compile them again, run python -m bitnet_jax.ops.native",
        path,
      )
      return None
  except (OSError, AttributeError):
    return None  # Of another kind of processor, or no such library.
  return loaded
