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
import jax.custom_batching
import jax.ffi
import jax.numpy as jnp
import jaxlib.version
from jaxtyping import Array, Float32, Int8, Int32, UInt8

from bitnet_jax.files import cache_folder

FOLDER = pathlib.Path(__file__).parent
SOURCES = ("packed_dot.cc", "ternary_dot.cc")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-w")
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
  digest = hashlib.sha256(
    " ".join((jaxlib.version.__version__, *FLAGS)).encode()
  )
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
    handlers = {target: getattr(loaded, target) for target in _TARGETS}
    if not run_here(loaded):
      return False
  except (OSError, RuntimeError, AttributeError):
    return False  # No home, of another kind of processor, or no such library.
  # JAX takes one library in a process, and any of these sources will do.
  for target in handlers.keys() - _registered:
    handler = jax.ffi.pycapsule(handlers[target])
    jax.ffi.register_ffi_target(target, handler, platform="cpu")
    _registered.add(target)
  return True


@contextlib.contextmanager
def portable() -> Iterator[None]:
  """Traces programs without kernels, for machines that have none.

  A function under ``jax.jit`` that was called before stays as it was traced.
  """
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


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def differentiable(kernel, by_xla, *operands):
  """Calls a kernel; what is differentiated is computed by XLA.

  Args:
    kernel: a function of the operands alone.
    by_xla: the same function without kernels.
    *operands: pytrees of arrays.
  """
  del by_xla
  return kernel(*operands)


@differentiable.defjvp
def _differentiable_jvp(kernel, by_xla, primals, tangents):
  del kernel
  return jax.jvp(by_xla, primals, tangents)


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
  return _call(_PACKED_DOT, (n,), jnp.int32, x, data)


def ternary_dot(
  x: Float32[Array, "m n"],
  codes: Int8[Array, "k n"],
  scale: Float32[Array, ""],
) -> Float32[Array, "m k"]:
  """Multiplies rows with rows of codes, -1, 0 or 1, if ``is_there()``.

  The sums of each row of the result depend on no other row, and on how many
  threads there are as little.
  """
  return _call(_TERNARY_DOT, (len(codes),), jnp.float32, x, codes, scale)


def ternary_conv_transpose(
  x: Float32[Array, "batch positions n"],
  codes: Int8[Array, "window k n"],
  scale: Float32[Array, ""],
  places: Int32[Array, "positions window"],
  *,
  size: int,
) -> Float32[Array, "batch size k"]:
  """Transposes a convolution by its input, if ``is_there()``.

  The sums of an example depend on no other, and not on the threads either.

  Args:
    x: cotangents of the outputs.
    codes: -1, 0 or 1, for each place of the window.
    scale: of the codes.
    places: which input an output meets at a place of the window; negative where
      that is padding.
    size: how many inputs an example has.
  """
  shape = size, codes.shape[1]
  operands = x, codes, scale, places
  return _call(_TERNARY_CONV_TRANSPOSE, shape, jnp.float32, *operands)


def _call(target, shape, dtype, *operands):
  """Calls a kernel with as many results of a shape as the first operand has.

  Where ``jax.vmap`` batches that operand alone, it becomes longer.
  """

  def call(x, *rest):
    result = jax.ShapeDtypeStruct((len(x), *shape), dtype)
    return jax.ffi.ffi_call(target, result, vmap_method="sequential")(x, *rest)

  batching = jax.custom_batching.custom_vmap(call)

  @batching.def_vmap
  def _(size, in_batched, x, *rest):
    if in_batched[0] and not any(in_batched[1:]):
      longer = x.reshape(size * x.shape[1], *x.shape[2:])
      return batching(longer, *rest).reshape(size, x.shape[1], *shape), True
    axes = [0 if batched else None for batched in in_batched]
    return jax.vmap(call, axes, axis_size=size)(x, *rest), True

  return batching(*operands)
