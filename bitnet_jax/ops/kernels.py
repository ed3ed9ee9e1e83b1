"""Optional kernels in C++ for products with ternary codes on CPUs.

``python -m bitnet_jax.ops.native`` compiles them and puts them into the cache
folder, from where every program takes them. Without them, or on processors that
lack their instructions (AVX-512 with VNNI and VBMI), products are those of XLA:
of integers with the same results, of float32 with the terms added up in another
order.
"""

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.ffi
import jax.numpy as jnp
import jaxlib.version
from jaxtyping import Array, Float32, Int8, Int32, UInt8

from bitnet_jax.files import cache_folder

FOLDER = pathlib.Path(__file__).parent
SOURCES = ("packed_dot.cc", "ternary_dot.cc")
_HEADER = "tiles.h"
_PACKED_DOT = "bitnet_packed_dot"
_TERNARY_DOT = "bitnet_ternary_dot"
_TERNARY_CONV_TRANSPOSE = "bitnet_ternary_conv_transpose"
_TARGETS = (_PACKED_DOT, _TERNARY_DOT, _TERNARY_CONV_TRANSPOSE)
_registered: set[str] = set()
_portable: contextvars.ContextVar[bool] = contextvars.ContextVar(
  "portable", default=False
)


def library() -> pathlib.Path:
  """Returns where the compiled kernels are, or would be."""
  digest = hashlib.sha256(jaxlib.version.__version__.encode())
  for name in (*SOURCES, _HEADER):
    digest.update((FOLDER / name).read_bytes())
  name = f"kernels-{digest.hexdigest()[:12]}.so"
  return cache_folder() / "native" / name


def run_here(loaded: Any) -> bool:
  """Whether this processor has the instructions of a library."""
  return bool(loaded.bitnet_runs_here())


@functools.cache
def is_there() -> bool:
  """Whether the kernels are compiled and run here; if so, JAX knows them."""
  try:
    path = library()
    if not path.exists():
      return False
    loaded: Any = ctypes.CDLL(str(path))
  except (OSError, RuntimeError):  # No home, or of another kind of processor.
    return False
  if not run_here(loaded):
    return False
  # JAX takes one library in a process, and any of these sources will do.
  for target in set(_TARGETS) - _registered:
    handler = jax.ffi.pycapsule(getattr(loaded, target))
    jax.ffi.register_ffi_target(target, handler, platform="cpu")
    _registered.add(target)
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
  """Whether programs that are traced now may use the kernels."""
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
    _PACKED_DOT,
    jax.ShapeDtypeStruct((x.shape[0], n), jnp.int32),
    vmap_method="sequential",
  )
  return call(x, data)


def ternary_dot(
  x: Float32[Array, "m n"],
  codes: Int8[Array, "k n"],
  scale: Float32[Array, ""],
) -> Float32[Array, "m k"]:
  """Multiplies rows with rows of codes, -1, 0 or 1, if ``is_there()``.

  The sums of each row of the result depend on no other row, and on how many
  threads there are as little.
  """
  call = jax.ffi.ffi_call(
    _TERNARY_DOT,
    jax.ShapeDtypeStruct((x.shape[0], codes.shape[0]), jnp.float32),
    vmap_method="sequential",
  )
  return call(x, codes, scale)


def ternary_conv_transpose(
  x: Float32[Array, "batch positions n"],
  codes: Int8[Array, "window k n"],
  scale: Float32[Array, ""],
  places: Int32[Array, "positions window"],
  *,
  size: int,
) -> Float32[Array, "batch size k"]:
  """Transposes a convolution by its input, if ``is_there()``.

  Examples do not depend on one another.

  Args:
    x: cotangents of the outputs.
    codes: -1, 0 or 1, for each place of the window.
    scale: of the codes.
    places: which input an output meets at a place of the window; negative where
      that is padding.
    size: how many inputs an example has.
  """
  call = jax.ffi.ffi_call(
    _TERNARY_CONV_TRANSPOSE,
    jax.ShapeDtypeStruct((x.shape[0], size, codes.shape[1]), jnp.float32),
    vmap_method="sequential",
  )
  return call(x, codes, scale, places)
