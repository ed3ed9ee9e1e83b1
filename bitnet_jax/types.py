"""The container of quantized arrays, and the axis letters of the package.

Shapes in signatures use these letters throughout: ``b`` batch, ``t`` time,
``d`` model width, ``f`` feed-forward width, ``h`` heads, ``k`` head size,
``v`` vocabulary, ``n`` nodes, ``e`` edges; or longer names such as ``d_in``.
"""

import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Packed:
  """Packed ternary codes, four or five to a byte.

  ``ops.pack`` makes them and ``ops.unpack`` returns the int8 codes.

  Attributes:
    data: uint8, shaped like the codes but shorter along ``axis``.
    length: number of codes along ``axis``.
    axis: the packed axis, counted from the end (negative) or from the start, so
      that it holds both for stacked codes and for one element of the stack.
    layout: a name in ``ops.packing.LAYOUTS``: "quad" (four to a byte) or
      "base3" (five).
  """

  data: jax.Array
  length: int = flax.struct.field(pytree_node=False)
  axis: int = flax.struct.field(pytree_node=False)
  layout: str = flax.struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the codes."""
    shape = list(self.data.shape)
    shape[self.axis] = self.length
    return tuple(shape)

  @property
  def ndim(self) -> int:
    """The number of axes of the codes."""
    return self.data.ndim


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
  """

  qvalue: jax.Array | Packed
  scale: jax.Array
  latent: jax.Array | None = None

  @property
  def codes(self) -> jax.Array:
    """The int8 codes, which must not be packed."""
    assert not isinstance(self.qvalue, Packed)
    return self.qvalue

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
