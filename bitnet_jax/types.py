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
class QTensor:
  """Integer codes and the scale that maps them back to real values.

  Attributes:
    qvalue: int8 codes, same shape as the array that was quantized.
    scale: positive float32 multiplier, broadcastable to ``qvalue``; NaN where
      an element that shares the scale was NaN or infinite.
  """

  qvalue: jax.Array
  scale: jax.Array

  def dequantize(self) -> jax.Array:
    """Returns ``qvalue * scale`` in the dtype of the scale."""
    return self.qvalue.astype(self.scale.dtype) * self.scale

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype that ``dequantize`` returns."""
    return self.scale.dtype
