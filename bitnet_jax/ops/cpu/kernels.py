"""The kernels in C++, as functions of arrays, where ``library.is_there()``."""

from typing import Any

import jax
import jax.custom_batching
import jax.ffi
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int8, Int32, UInt8

from bitnet_jax.ops.xla import NORM_EPS
from bitnet_jax.quantizers.quantizer import Quantizer

_ROWS = "broadcast_all"  # No row depends on another.
# How the kernels call the norms.
_NORMS = {None: 0, "layer_norm": 1, "rms_norm": 2}


def packed_dot(
  x: Int8[Array, "m k"],
  data: UInt8[Array, "*stack quads n"],
  index: Int32[Array, ""] | None = None,
) -> Int32[Array, "m n"]:
  """Multiplies rows with packed codes, exactly.

  Args:
    x: as many values in a row as there are codes in a column.
    data: of ``Packed`` in the layout "quad", packed along its last axis but
      one.
    index: which element of a stack to multiply with.
  """
  n = data.shape[-1]
  stack = data[None] if index is None else data
  place = jnp.asarray(0 if index is None else index, jnp.int32)
  return _call("bitnet_packed_dot", (n,), jnp.int32, x, stack, place)


def ternary_dot(
  x: Float32[Array, "m n"],
  codes: Int8[Array, "k n"],
  scale: Float32[Array, ""],
) -> Float32[Array, "m k"]:
  """Multiplies rows with rows of codes, -1, 0 or 1.

  The sums of a row of the result do not depend on other rows, nor on the number
  of threads.
  """
  return _call(
    "bitnet_ternary_dot", (len(codes),), jnp.float32, x, codes, scale
  )


def ternary_conv_transpose(
  x: Float32[Array, "batch positions n"],
  codes: Int8[Array, "window k n"],
  scale: Float32[Array, ""],
  places: Int32[Array, "positions window"],
  *,
  size: int,
) -> Float32[Array, "batch size k"]:
  """Transposes a convolution by its input.

  The sums of an example depend on no other, and not on the threads either.

  Args:
    x: cotangents of the outputs.
    codes: -1, 0 or 1, for each place of the window.
    scale: scale of the codes.
    places: which input an output meets at a place of the window; negative where
      that is padding.
    size: how many inputs an example has.
  """
  shape = size, codes.shape[1]
  operands = x, codes, scale, places
  return _call("bitnet_ternary_conv_transpose", shape, jnp.float32, *operands)


def transposed_dot(
  codes: Int8[Array, "m k"],
  scale: Float32[Array, "#m"],
  x: Float32[Array, "m n"],
) -> Float32[Array, "k n"]:
  """Multiplies scaled codes, transposed, with rows.

  Of 512 rows at a time, columns of ``scale * x`` become integers of 24 bits, as
  large as the largest of them allows, whose products are summed exactly. So
  ``scale * x`` is off by at most ``2**-23`` of the largest. What is not finite
  makes its column NaN. The sums depend on no other column, nor on how many
  threads there are.
  """
  shape = jax.ShapeDtypeStruct((codes.shape[1], x.shape[1]), jnp.float32)
  return _ffi("bitnet_transposed_dot", shape)(codes, scale, x)


def transposed_conv(
  codes: Int8[Array, "batch size k"],
  scale: Float32[Array, "#batch"],
  x: Float32[Array, "batch positions n"],
  places: Int32[Array, "positions window"],
) -> Float32[Array, "window k n"]:
  """Transposes a convolution by its weights, likewise.

  Args:
    codes: inputs.
    scale: scale of each example, or of all.
    x: cotangents of the outputs.
    places: see ``ternary_conv_transpose``.
  """
  shape = places.shape[1], codes.shape[2], x.shape[2]
  result = jax.ShapeDtypeStruct(shape, jnp.float32)
  return _ffi("bitnet_transposed_conv", result)(codes, scale, x, places)


def quantizes_rows(x: Array, *, norm: str | None, quantizer: Quantizer) -> bool:
  """Whether ``quantize_rows`` rounds as the quantizer does.

  However few values there are, so that a row has its codes in any batch.
  """
  return (
    x.dtype == jnp.float32
    and quantizer.measure == "absmax"
    and quantizer.rounding == "nearest"
    and quantizer.axis is not None
  )


def quantize_rows(
  x: Float32[Array, "*batch n"], *, norm: str | None, quantizer: Quantizer
) -> tuple[Array, Array, Array, Array]:
  """Normalizes rows and rounds them; see ``xla.quantize_rows``."""
  one = jax.ShapeDtypeStruct((*x.shape[:-1], 1), jnp.float32)
  results = jax.ShapeDtypeStruct(x.shape, jnp.int8), one, one, one
  low, high = quantizer.range
  codes, scale, mean, factor = _ffi("bitnet_quantize_rows", results, _ROWS)(
    x,
    norm=np.int64(_NORMS[norm]),
    low=np.int64(low),
    high=np.int64(high),
    norm_eps=np.float32(NORM_EPS),
    eps=np.float32(quantizer.eps),
  )
  return codes, scale, mean, factor


def takes_norm_gradient(
  x: Array, *_: Any, axes: tuple[int, ...], norm: str
) -> bool:
  """Whether rows of float32 were normalized."""
  return axes in ((-1,), (x.ndim - 1,)) and x.dtype == jnp.float32


def norm_gradient(
  x: Float32[Array, "*batch n"],
  mean: Float32[Array, "*batch 1"] | None,
  factor: Float32[Array, "*batch 1"],
  g: Float32[Array, "*batch n"],
  *,
  norm: str,
  axes: tuple[int, ...],
) -> Float32[Array, "*batch n"]:
  """Returns the gradient by normalized rows; see ``xla.norm_gradient``."""
  mean = jnp.zeros_like(factor) if mean is None else mean
  result = jax.ShapeDtypeStruct(x.shape, jnp.float32)
  call = _ffi("bitnet_norm_gradients", result, _ROWS)
  return call(x, mean, factor, g, norm=np.int64(_NORMS[norm]))


def takes_query(*operands: Array) -> bool:
  """Whether query, keys and values are float32."""
  return all(a.dtype == jnp.float32 for a in operands[:3])


def attend_cached(
  query: Float32[Array, "b kv_heads groups k"],
  keys: Float32[Array, "layers b kv_heads s k"],
  values: Float32[Array, "layers b kv_heads s k"],
  layer: Int32[Array, ""],
  mask: Bool[Array, "b s"],
) -> Float32[Array, "b kv_heads groups k"]:
  """Reads keys and values in place; see ``ops.attention.attend_cached``."""
  result = jax.ShapeDtypeStruct(query.shape, jnp.float32)
  call = _ffi("bitnet_attend_cached", result)
  return call(query, keys, values, layer, mask)


def _ffi(target, results, vmap_method="sequential"):
  return jax.ffi.ffi_call(target, results, vmap_method=vmap_method)


def _call(target, shape, dtype, *operands):
  """Calls a kernel with as many results of a shape as the first operand has.

  Where ``jax.vmap`` batches that operand alone, it becomes longer.
  """

  def call(x, *rest):
    result = jax.ShapeDtypeStruct((len(x), *shape), dtype)
    return _ffi(target, result)(x, *rest)

  batching = jax.custom_batching.custom_vmap(call)

  @batching.def_vmap
  def _(size, in_batched, x, *rest):
    if in_batched[0] and not any(in_batched[1:]):
      longer = x.reshape(size * x.shape[1], *x.shape[2:])
      return batching(longer, *rest).reshape(size, x.shape[1], *shape), True
    axes = [0 if batched else None for batched in in_batched]
    return jax.vmap(call, axes, axis_size=size)(x, *rest), True

  return batching(*operands)
