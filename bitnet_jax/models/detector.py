"""Small single-shot detector: one box for each cell of a grid, no anchors."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.models.base import Call, ModelConfig
from bitnet_jax.models.cnn import ConvNet

# Outputs of a cell before those of the classes: whether an object has its
# center there, the place of the center (2), and width and height (2).
BOX_OUTPUTS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorConfig(ModelConfig):
  """Sizes of a ``Detector``.

  Attributes:
    channels: output channels of each block; a block halves height and width, so
      that a cell has 2 to the power of their number pixels a side.
    convs_per_block: number of 3x3 convolutions in a block.
    width: output channels of the convolution over cells.
    batch_norm: whether a batch norm follows each convolution of a block.
    dropout: rate before the last layer, in [0, 1).
    num_classes: number of classes.
    dtype: dtype of activations, a name in ``DTYPES``.
    param_dtype: dtype of the latent weights, a name in ``DTYPES``.
  """

  channels: tuple[int, ...]
  convs_per_block: int = 2
  width: int
  batch_norm: bool = False
  num_classes: int


class Detector(ConvNet):
  """Blocks of ``conv_<block>_<i>`` with pooling, then ``neck`` and ``head``.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths.
  """

  cfg: DetectorConfig

  @nn.compact
  def __call__(
    self,
    x: Num[Array, "batch height width channels"],
    *,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "batch rows columns outputs"]:
    """Returns ``BOX_OUTPUTS`` numbers and a logit a class, for each cell.

    ``train.tasks.boxes`` says what they mean.

    Raises:
      ValueError: for images that are too small for the number of blocks.
    """
    cfg = self.cfg
    x = self.blocks(x, deterministic=deterministic, strength=strength)
    x = nn.relu(self.conv("neck", cfg.width)(x, strength=strength))
    x = nn.with_logical_constraint(x, ("batch", None, None, "mlp"))
    x = nn.Dropout(cfg.dropout, deterministic=deterministic)(x)
    outputs = BOX_OUTPUTS + cfg.num_classes
    return self.conv("head", outputs, size=1, axis=None)(x, strength=strength)

  @nn.nowrap
  def example_call(self, params: Any) -> Call:
    """Returns an image of one cell, as shapes."""
    side = 2 ** len(self.cfg.channels)
    c_in = params["conv_0_0"]["kernel"].shape[-2]
    return (jax.ShapeDtypeStruct((1, side, side, c_in), jnp.float32),), {}
