"""The container of quantized arrays, and the axis letters of the package.

Shapes in signatures use these letters throughout: ``b`` batch, ``t`` time,
``d`` model width, ``f`` feed-forward width, ``h`` heads, ``k`` head size,
``v`` vocabulary, ``n`` nodes, ``e`` edges; spelled-out names such as ``d_in``
where a letter would not say enough.
"""

import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Packed:
  """Ternary codes, several to a byte; see ``ops.packing``.

  Attributes:
    data: uint8, like the codes but shorter along ``axis``.
    length: number of codes along ``axis``.
    axis: which axis is packed, counted from the last (negative) or from the
      first: right for stacked codes and for one of the stack.
    layout: how, a name in ``ops.packing.LAYOUTS``.
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
    """The number of their axes."""
    return self.data.ndim


@flax.struct.dataclass
class QTensor:
  """Integer codes and the scale that maps them back to real values.

  Attributes:
    qvalue: int8 codes, same shape as the array that was quantized; or these
      ``Packed``, which products of weights take as well.
    scale: positive float32 multiplier, broadcastable to ``qvalue``; NaN where
      an element that shares the scale was NaN or infinite.
    latent: the array that was quantized, for gradients to pass straight through
      to; ``None`` where they should not. Never read by a product.
  """

  qvalue: jax.Array | Packed
  scale: jax.Array
  latent: jax.Array | None = None

  @property
  def codes(self) -> jax.Array:
    """The codes, which must not be packed."""
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
    """The number of its axes."""
    return self.qvalue.ndim

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype of the latent array, or else of the scale."""
    return (self.scale if self.latent is None else self.latent).dtype
