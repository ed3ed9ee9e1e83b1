"""Optional kernels in C++ for products with codes on CPUs, and for rounding.

``python -m bitnet_jax.ops.native`` compiles them and puts them into the cache
folder, from where every program takes them. Without them, or on processors that
lack their instructions (AVX-512 with VNNI and VBMI), XLA does it all: products
of integers with the same results, those of float32 and norms with the terms
added up in another order.
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
import numpy as np
from absl import logging
from jaxtyping import Array, Float32, Int8, Int32, UInt8

from bitnet_jax import backend
from bitnet_jax.files import cache_folder, check_ours

FOLDER = pathlib.Path(__file__).parent
SOURCES = ("packed_dot.cc", "rows.cc", "ternary_dot.cc", "transposed_dot.cc")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-w")
_HEADER = "tiles.h"
_PACKED_DOT = "bitnet_packed_dot"
_TERNARY_DOT = "bitnet_ternary_dot"
_TERNARY_CONV_TRANSPOSE = "bitnet_ternary_conv_transpose"
_TRANSPOSED_DOT = "bitnet_transposed_dot"
_TRANSPOSED_CONV = "bitnet_transposed_conv"
_QUANTIZE_ROWS = "bitnet_quantize_rows"
_NORM_GRADIENTS = "bitnet_norm_gradients"
_TARGETS = (
  _PACKED_DOT,
  _TERNARY_DOT,
  _TERNARY_CONV_TRANSPOSE,
  _TRANSPOSED_DOT,
  _TRANSPOSED_CONV,
  _QUANTIZE_ROWS,
  _NORM_GRADIENTS,
)
# How the kernels call the norms.
_NORMS = {None: 0, "layer_norm": 1, "rms_norm": 2}
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
    path = library()
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
    handlers = {target: getattr(loaded, target) for target in _TARGETS}
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


def suit(*operands: Array) -> bool:
  """Whether kernels may take these operands, which are whole.

  Not on several devices, under ``jax.shard_map``, or with batches of any size.
  """
  return (
    backend.is_one_cpu()
    and may_be_used()
    and all(isinstance(n, int) for x in operands for n in x.shape)
    and not jax.sharding.get_abstract_mesh().manual_axes
  )


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


def transposed_dot(
  codes: Int8[Array, "m k"],
  scale: Float32[Array, "#m"],
  x: Float32[Array, "m n"],
) -> Float32[Array, "k n"]:
  """Multiplies scaled codes, transposed, with rows, if ``is_there()``.

  Of 512 rows at a time, columns of ``scale * x`` become integers of 24 bits, as
  large as the largest of them allows, whose products are summed exactly. So
  ``scale * x`` is off by at most ``2**-23`` of the largest. What is not finite
  makes its column NaN. The sums depend on no other column, nor on how many
  threads there are.
  """
  shape = jax.ShapeDtypeStruct((codes.shape[1], x.shape[1]), jnp.float32)
  return jax.ffi.ffi_call(_TRANSPOSED_DOT, shape, vmap_method="sequential")(
    codes, scale, x
  )


def transposed_conv(
  codes: Int8[Array, "batch size k"],
  scale: Float32[Array, "#batch"],
  x: Float32[Array, "batch positions n"],
  places: Int32[Array, "positions window"],
) -> Float32[Array, "window k n"]:
  """Transposes a convolution by its weights, likewise.

  Args:
    codes: inputs.
    scale: of each example, or of all.
    x: cotangents of the outputs.
    places: see ``ternary_conv_transpose``.
  """
  shape = places.shape[1], codes.shape[2], x.shape[2]
  result = jax.ShapeDtypeStruct(shape, jnp.float32)
  call = jax.ffi.ffi_call(_TRANSPOSED_CONV, result, vmap_method="sequential")
  return call(codes, scale, x, places)


def quantize_rows(
  x: Float32[Array, "*batch n"],
  *,
  norm: str | None,
  norm_eps: float,
  codes: tuple[int, int],
  eps: float,
) -> tuple[
  Int8[Array, "*batch n"],
  Float32[Array, "*batch 1"],
  Float32[Array, "*batch 1"],
  Float32[Array, "*batch 1"],
]:
  """Normalizes rows and rounds them by their largest, if ``is_there()``.

  Args:
    x: rows; none depends on another.
    norm: "layer_norm", "rms_norm" or ``None``.
    norm_eps: added to the variance.
    codes: lowest and highest.
    eps: floor of the largest magnitude.

  Returns:
    Codes and their scales, and means and factors of the norm; 0 and 1 for what
    it has not.
  """
  one = jax.ShapeDtypeStruct((*x.shape[:-1], 1), jnp.float32)
  results = jax.ShapeDtypeStruct(x.shape, jnp.int8), one, one, one
  call = jax.ffi.ffi_call(_QUANTIZE_ROWS, results, vmap_method="broadcast_all")
  rounded, scale, mean, factor = call(
    x,
    norm=np.int64(_NORMS[norm]),
    low=np.int64(codes[0]),
    high=np.int64(codes[1]),
    norm_eps=np.float32(norm_eps),
    eps=np.float32(eps),
  )
  return rounded, scale, mean, factor


def norm_gradients(
  x: Float32[Array, "*batch n"],
  mean: Float32[Array, "*batch 1"],
  factor: Float32[Array, "*batch 1"],
  g: Float32[Array, "*batch n"],
  *,
  norm: str,
) -> Float32[Array, "*batch n"]:
  """Returns the gradient by rows that a norm was applied to, likewise.

  Args:
    x: rows.
    mean: of each, 0 for "rms_norm".
    factor: of each.
    g: cotangents of ``(x - mean) * factor``.
    norm: "layer_norm" or "rms_norm".
  """
  result = jax.ShapeDtypeStruct(x.shape, jnp.float32)
  call = jax.ffi.ffi_call(_NORM_GRADIENTS, result, vmap_method="broadcast_all")
  return call(x, mean, factor, g, norm=np.int64(_NORMS[norm]))


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
