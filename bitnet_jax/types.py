"""The container of quantized arrays, and the axis letters of the package.

Shapes in signatures use these letters throughout: ``b`` batch, ``t`` time,
``d`` model width, ``f`` feed-forward width, ``h`` heads, ``k`` head size,
``v`` vocabulary, ``n`` nodes, ``e`` edges; or longer names such as ``d_in``.
"""

import dataclasses

import flax
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Layout:
  """How neighbouring codes along an axis share a byte.

  Attributes:
    codes: how many do.
    base: the byte is ``sum((code_i + 1) * base ** i)``.
  """

  codes: int
  base: int


LAYOUTS = {
  "quad": Layout(codes=4, base=4),  # Taken apart by shifts.
  "base3": Layout(codes=5, base=3),  # 1.6 bits a code.
}


@flax.struct.dataclass
class Packed:
  """Packed ternary codes, four or five to a byte.

  ``ops.pack`` makes them and ``ops.unpack`` returns the int8 codes.

  Attributes:
    data: uint8, shaped like the codes but shorter along ``axis``.
    length: number of codes along ``axis``.
    axis: the packed axis, counted from the end (negative) or from the start, so
      that it holds both for stacked codes and for one element of the stack.
    layout: a name in ``LAYOUTS``: "quad" (four to a byte) or
      "base3" (five).
    index: int32 scalar: which element of ``data``, a stack along its first
      axis, this is; ``None`` if it is all of ``data``. A product of few rows
      reads it in place.

  Example:
    >>> import jax
    >>> from bitnet_jax import Packed
    >>> from bitnet_jax.ops import pack
    >>> packed = pack(jax.numpy.array([1, 0, -1, 1, 0], "int8"))
    >>> isinstance(packed, Packed)
    True
    >>> packed.data.shape, packed.shape
    ((2,), (5,))
    >>> packed.unpack().tolist()
    [1, 0, -1, 1, 0]
  """

  data: jax.Array
  length: int = flax.struct.field(pytree_node=False)
  axis: int = flax.struct.field(pytree_node=False)
  layout: str = flax.struct.field(pytree_node=False)
  index: jax.Array | None = None

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the codes."""
    shape = list(self.data.shape)
    shape[self.axis] = self.length
    return tuple(shape if self.index is None else shape[1:])

  @property
  def ndim(self) -> int:
    """The number of axes of the codes."""
    return self.data.ndim - (self.index is not None)

  @property
  def is_quad_matrix(self) -> bool:
    """Whether this is [k, n] with four neighbours along k in a byte."""
    return (self.layout, self.axis, self.ndim) == ("quad", -2, 2)

  def alone(self) -> "Packed":
    """Returns it with data of its own, without the rest of the stack."""
    if self.index is None:
      return self
    data = jax.lax.dynamic_index_in_dim(self.data, self.index, keepdims=False)
    return Packed(data, self.length, self.axis, self.layout)

  def unpack(self) -> jax.Array:
    """Returns the int8 codes."""
    layout, axis = LAYOUTS[self.layout], self.axis % self.ndim
    data = jnp.expand_dims(self.alone().data, axis + 1)
    places = jax.lax.broadcasted_iota(
      jnp.uint8,
      (*[1] * (axis + 1), layout.codes, *[1] * (data.ndim - axis - 2)),
      axis + 1,
    )
    if layout.base == 4:
      # In int8 throughout, which CPUs do fastest.
      digits = (data.astype(jnp.int8) >> (2 * places.astype(jnp.int8))) & 3
    else:
      digits = data // layout.base**places % layout.base
    codes = digits.astype(jnp.int8) - 1
    codes = codes.reshape(*data.shape[:axis], -1, *data.shape[axis + 2 :])
    return jax.lax.slice_in_dim(codes, 0, self.length, axis=axis)


@flax.struct.dataclass
class QTensor:
  """Integer codes and the scale that maps them back to real values.

  Attributes:
    qvalue: int8 codes, same shape as the array that was quantized; for weights
      also ``Packed``.
    scale: positive float32 multiplier, broadcastable to ``qvalue``; NaN where
      an element that shares the scale was NaN or infinite.
    latent: the array that was quantized, which receives straight-through
      gradients; ``None`` for no gradients. Products never read it.

  Example:
    >>> import jax
    >>> from bitnet_jax import QTensor
    >>> q = QTensor(jax.numpy.array([1, -1], "int8"), jax.numpy.array(3.0))
    >>> q.dequantize().tolist()
    [3.0, -3.0]
  """

  qvalue: jax.Array | Packed
  scale: jax.Array
  latent: jax.Array | None = None

  @property
  def codes(self) -> jax.Array:
    """The int8 codes, unpacked if they are packed."""
    codes = self.qvalue
    return codes.unpack() if isinstance(codes, Packed) else codes

  def dequantize(self) -> jax.Array:
    """Returns ``codes * scale`` in the dtype of the scale."""
    return self.codes.astype(self.scale.dtype) * self.scale

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the array that was quantized."""
    return self.qvalue.shape

  @property
  def ndim(self) -> int:
    """The number of axes of the array that was quantized."""
    return self.qvalue.ndim

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype of the latent array, or else of the scale."""
    return (self.scale if self.latent is None else self.latent).dtype
