"""Quantized matrix product."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import layout
from jaxtyping import Array, ArrayLike, Float, Key

from bitnet_jax import backend
from bitnet_jax.ops import compute, kernels, packed_dot
from bitnet_jax.ops.packing import unpack
from bitnet_jax.ops.product import quantized_product
from bitnet_jax.quantizers.recipe import RecipeLike, get_recipe
from bitnet_jax.types import Packed, QTensor


@dataclasses.dataclass(frozen=True)
class MatMul:
  """``x [*batch, K]`` times ``w [K, N]``."""

  def __call__(self, x, w, *, precision, dtype):
    """See ``Bilinear``."""
    if isinstance(w, Packed):
      if packed_dot.suits(x, w):
        return packed_dot.dot(x, w)
      w = unpack(w)
    sums = {"precision": precision, "preferred_element_type": dtype}
    rows = math.prod(x.shape[:-1])
    if x.dtype == jnp.int8 and rows == 1 and compute.on_cpu():
      # XLA has no fast int8 product of a single row: a second one, of zeros,
      # makes it ten times faster.
      two = jnp.pad(x.reshape(1, -1), ((0, 1), (0, 0)))
      y = jax.lax.dot_general(two, w, (((1,), (0,)), ((), ())), **sums)
      return y[0].reshape(*x.shape[:-1], -1)
    flat = _flat(x) if backend.is_one_cpu() else x
    contracted = (((flat.ndim - 1,), (0,)), ((), ()))
    y = jax.lax.dot_general(flat, w, contracted, **sums)
    return y.reshape(*x.shape[:-1], w.shape[-1])

  def input_gradient(self, g, w, x, *, precision):
    """See ``Bilinear``."""

    def by_kernel(g, w):
      scale = w.scale.reshape(()).astype(jnp.float32)
      dx = kernels.ternary_dot(_flat(g), w.codes, scale)
      return dx.reshape(x.shape)

    def by_xla(g, w):
      w = w.dequantize() if isinstance(w, QTensor) else w
      dot = functools.partial(
        jax.lax.dot_general,
        dimension_numbers=(((g.ndim - 1,), (1,)), ((), ())),
        precision=precision,
        preferred_element_type=_sum_dtype(g),
      )
      if g.dtype != jnp.int8:
        return dot(g, w)
      return compute.sum_in_parts(
        lambda part: dot(g[..., part], w[:, part]),
        terms=w.shape[1],
        most=compute.INT8_TERMS,
      )

    if looks_sums_up(g, w):
      return kernels.differentiable(by_kernel, by_xla, g, w)
    return by_xla(g, w)

  def weight_gradient(self, g, x, w, *, precision):
    """See ``Bilinear``."""
    dtype = _sum_dtype(g)
    if w.dtype == jnp.bfloat16 and not compute.on_cpu():
      dtype = w.dtype
    return transposed_dot(x, g, precision=precision, dtype=dtype)

  def act_axes(self, quantizer, x):
    """See ``Bilinear``."""
    return tuple(range(x.ndim)) if quantizer.axis is None else (x.ndim - 1,)

  def weight_axes(self, quantizer, w):
    """See ``Bilinear``."""
    del w
    return (0, 1) if quantizer.axis is None else (0,)

  def terms(self, w):
    """See ``Bilinear``."""
    return w.shape[0]

  def slow_in_int8(self, x, w):
    """See ``Bilinear``."""
    del x, w
    return False


def bit_dot(
  x: Float[Array, "*batch d_in"] | QTensor,
  w: Float[Array, "d_in d_out"] | QTensor,
  recipe: RecipeLike,
  *,
  bias: Float[Array, " d_out"] | None = None,
  strength: ArrayLike | None = None,
  key: Key[Array, ""] | None = None,
  precision: Any = None,
  dtype: Any = None,
) -> Float[Array, "*batch d_out"]:
  """Multiplies activations and weights as integers.

  ``y = (codes_x . codes_w) * scale_x * scale_w + bias``, the codes multiplied
  as int8 into int32, the scales applied one after the other in float32. The
  gradient is straight-through: ``dx = (g * scale_w) . codes_w^T`` and
  ``dw = (codes_x * scale_x)^T . g``, in float32 unless the recipe's
  ``backward`` says otherwise (see ``kernels.transposed_dot`` for one that sums
  integers of 24 bits). What is kept for it are the int8 codes and the
  scales, besides an operand that the recipe leaves in float and, for
  ``ste="clipped"``, one boolean mask an operand. Reverse mode only: ``jax.jvp``
  raises a TypeError. So does a second derivative that would need one of codes,
  such as a gradient penalty; with ``strength=1.0`` the same product has
  straight-through derivatives of any order.

  The norm of the recipe is not applied here but by ``normalize``, before.

  Args:
    x: activations, with any number of leading axes.
    w: latent weights. Each operand may be a ``QTensor`` instead, to quantize
      it once for several products; it is taken as it is, with codes in the
      recipe's range, and the gradient goes to its ``latent``.
    recipe: a ``Recipe`` or the name of one.
    bias: added after scaling, or before it under ``bias_in_product``.
    strength: ``None`` quantizes fully. A scalar in [0, 1] blends instead, in
      float: ``x + strength * (dequantize(quantize(x)) - x)`` for each operand.
    key: random key, for stochastic rounding; that of ``backward="int8"`` needs
      it for gradients alone.
    precision: of products with an operand in float, forward and backward.
    dtype: of the result; by default what the inputs promote to. The scales
      come from the inputs as given, before any cast.

  Returns:
    The product, in ``dtype``.

  Raises:
    ValueError: for shapes that do not match, an unknown recipe, a missing key,
      or a recipe that cannot run as asked (see ``choose_compute``).
    TypeError: see above; and for complex numbers, unless the recipe is
      "float".
  """
  if x.ndim < 1 or w.ndim != 2 or x.shape[-1] != w.shape[0]:
    raise ValueError(
      f"bit_dot takes x [*batch, K] and w [K, N], not {x.shape} and {w.shape}"
    )
  return quantized_product(
    MatMul(),
    x,
    w,
    bias,
    get_recipe(recipe),
    strength=strength,
    key=key,
    precision=precision,
    dtype=dtype,
  )


def transposed_dot(
  x: Array | QTensor, g: Array, *, precision: Any, dtype: Any
) -> Array:
  """Returns ``x^T g``, [k, n], as weight gradients are.

  Args:
    x: [*batch, k].
    g: [*batch, n]; ``x`` is cast to its dtype.
    precision: of float32, where no kernel sums integers.
    dtype: of the sums; float32 instead of int32 if they don't fit that.
  """
  if backend.is_one_cpu():
    x, g = jax.tree.map(_flat, (_with_scales_of_rows(x), g))
  by_xla = functools.partial(_transposed_dot, precision=precision, dtype=dtype)
  columns = compute.CPU_MIN_COLUMNS_SUMMED
  if dtype == jnp.float32 and sums_integers(x, g, columns=columns):
    return kernels.differentiable(_transposed_dot_by_kernel, by_xla, x, g)
  return by_xla(x, g)


def _with_scales_of_rows(x):
  """Gives each row the scale that it shares with others."""
  if not isinstance(x, QTensor):
    return x
  return QTensor(x.qvalue, jnp.broadcast_to(x.scale, (*x.shape[:-1], 1)))


def _transposed_dot_by_kernel(x, g):
  codes, scale = x, jnp.ones((1,), jnp.float32)
  if isinstance(x, QTensor):
    codes, scale = x.codes, x.scale[:, 0].astype(jnp.float32)
  return kernels.transposed_dot(codes, scale, g)


def _transposed_dot(x, g, *, precision, dtype):
  contract = functools.partial(_contract_rows, precision=precision, dtype=dtype)
  terms = math.prod(g.shape[:-1])
  if dtype != jnp.int32 or not isinstance(terms, int):
    return contract(x, g)
  if terms <= compute.INT8_TERMS:
    return contract(x, g)
  x, g = _flat(x), _flat(g)
  return compute.sum_in_parts(
    lambda part: contract(x[part], g[part]),
    terms=terms,
    most=compute.INT8_TERMS,
  )


def _contract_rows(x, g, *, precision, dtype):
  rows = rows_of_x = tuple(range(g.ndim - 1))
  if transposes_first(x, g):
    x, rows_of_x = jax.tree.map(_transposed, x), (1,)
  x = x.dequantize() if isinstance(x, QTensor) else x
  return jax.lax.dot_general(
    x.astype(g.dtype),
    g,
    ((rows_of_x, rows), ((), ())),
    precision=precision,
    preferred_element_type=dtype,
  )


def transposes_first(x: Array | QTensor, g: Array) -> bool:
  """Says whether ``transposed_dot`` multiplies a copy of ``x^T``.

  XLA's CPU backend multiplies a transposed operand as float32, whatever it is,
  and not at its fastest.
  """
  if not backend.is_one_cpu():
    return False
  if isinstance(x, QTensor) or g.dtype != jnp.float32:
    return True
  return x.shape[-1] >= compute.CPU_MIN_COLUMNS_COPIED


def looks_sums_up(g: Array, w: Array | QTensor) -> bool:
  """Whether a kernel looks up the sums of a gradient by the input."""
  return (
    isinstance(w, QTensor)
    and w.codes.dtype == jnp.int8
    and kernels.suit(g)
    and min(w.shape[-2:]) >= compute.CPU_MIN_COLUMNS_LOOKED_UP
  )


def sums_integers(x: Array | QTensor, g: Array, *, columns: int) -> bool:
  """Whether a kernel sums a gradient by the weight as integers.

  Args:
    x: codes, if it does.
    g: [*batch, n].
    columns: that codes must have.
  """
  codes = x.codes if isinstance(x, QTensor) else x
  return (
    codes.dtype == jnp.int8
    and g.dtype == jnp.float32
    and kernels.suit(g)
    and math.prod(g.shape[:-1]) >= compute.CPU_MIN_ROWS_SUMMED
    and codes.shape[-1] >= columns
    and g.shape[-1] >= compute.CPU_MIN_OUTPUTS_SUMMED
  )


def _transposed(x):
  """Transposes a matrix in memory, before what follows."""
  x = layout.with_layout_constraint(x.T, layout.Layout((0, 1)))
  return jax.lax.optimization_barrier(x)


def _flat(x):
  """Flattens the leading axes.

  Where several are contracted, XLA's CPU backend copies an operand and
  multiplies the copy slower.
  """
  return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _sum_dtype(codes_or_floats):
  is_codes = codes_or_floats.dtype == jnp.int8
  return jnp.int32 if is_codes else jnp.float32
