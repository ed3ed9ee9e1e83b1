"""Small convolutional network for images, as in the papers."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers import BitConv, norms
from bitnet_jax.layers.projections import default_kernel_init
from bitnet_jax.models.base import Call, Model, ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class CnnConfig(ModelConfig):
  """Sizes of a ``Cnn``.

  Attributes:
    channels: output channels of each block; a block halves height and width.
    convs_per_block: number of 3x3 convolutions in a block.
    dense_width: units of the hidden dense layer.
    batch_norm: whether a batch norm follows each convolution.
    dropout: rate after the hidden dense layer, in [0, 1).
    num_classes: number of outputs.
    dtype: dtype of activations, a name in ``DTYPES``.
    param_dtype: dtype of the latent weights, a name in ``DTYPES``.
  """

  channels: tuple[int, ...]
  convs_per_block: int = 1
  dense_width: int
  batch_norm: bool = False
  num_classes: int


def max_pool_by_two(
  x: Num[Array, "batch height width channels"],
) -> Num[Array, "batch half_height half_width channels"]:
  """Returns the maximum of each 2x2 window; an odd last row is left out.

  The same as ``nn.max_pool(x, (2, 2), (2, 2))``, with a gradient that is faster
  on CPUs. The gradient of ``jnp.max`` divides by the number of elements that
  equal the maximum. That is zero where XLA computes them twice and rounds
  differently, so ``jnp.max`` is not used.
  """
  b, height, width, c = x.shape
  half_h, half_w = height // 2, width // 2
  x = x[:, : 2 * half_h, : 2 * half_w]
  x = x.reshape(b, half_h, 2, half_w, 2, c)
  x = _larger(x[:, :, 0], x[:, :, 1])
  return _larger(x[:, :, :, 0], x[:, :, :, 1])


def _larger(a, b):
  """The elementwise maximum; all of the gradient goes to the larger one."""
  return jnp.where((a >= b) | jnp.isnan(a), a, b)


class ConvNet(Model):
  """Base of models that begin with blocks of ``conv_<block>_<i>`` and pooling.

  Attributes:
    cfg: sizes, with "channels", "convs_per_block" and "batch_norm".
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths.
  """

  def blocks(
    self,
    x: Num[Array, "batch height width channels"],
    *,
    deterministic: bool,
    strength: ArrayLike | None,
  ) -> Num[Array, "batch small_height small_width features"]:
    """Returns the features of images, after the blocks.

    Raises:
      ValueError: for images that are too small for the number of blocks.
    """
    cfg = self.cfg
    if min(x.shape[1:3]) < 2 ** len(cfg.channels):
      raise ValueError(
        f"model.channels asks for {len(cfg.channels)} blocks, each of which"
        f" halves the image, but the images are {x.shape[1]}x{x.shape[2]}"
      )
    for block, features in enumerate(cfg.channels):
      for i in range(cfg.convs_per_block):
        name = f"conv_{block}_{i}"
        conv = self.conv(name, features, is_first=block == i == 0)
        x = conv(x, strength=strength)
        if cfg.batch_norm:
          x = norms.BatchNorm(
            use_running_average=deterministic,
            dtype=cfg.dtypes["dtype"],
            name=f"norm_{block}_{i}",
          )(x)
        if i == cfg.convs_per_block - 1:
          x = max_pool_by_two(x)  # Before the ReLU: equal, with 1/4 the work.
        axes = ("batch", None, None, "mlp")
        x = nn.with_logical_constraint(nn.relu(x), axes)
    return x

  def conv(
    self,
    name: str,
    features: int,
    *,
    is_first: bool = False,
    size: int = 3,
    axis: str | None = "mlp",
  ) -> BitConv:
    """Returns a convolution.

    Args:
      name: of the layer.
      features: number of output channels.
      is_first: whether it reads images.
      size: height and width of the kernel.
      axis: logical axis of the output channels.
    """
    axes = (None, None, None if is_first else "embed", axis)
    return BitConv(
      features,
      (size, size),
      kernel_init=nn.with_logical_partitioning(default_kernel_init, axes),
      recipe=self.recipe,
      name=name,
      **self.cfg.dtypes,
    )


class Cnn(ConvNet):
  """Blocks of ``conv_<block>_<i>`` with pooling, then ``dense`` and ``head``.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths.
  """

  cfg: CnnConfig

  @nn.compact
  def __call__(
    self,
    x: Num[Array, "batch height width channels"],
    *,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "batch num_classes"]:
    """Returns logits.

    Raises:
      ValueError: for images that are too small for the number of blocks.
    """
    cfg = self.cfg
    x = self.blocks(x, deterministic=deterministic, strength=strength)
    x = x.reshape(x.shape[0], -1)
    dense = self.dense("dense", cfg.dense_width, ("embed", "mlp"))
    x = nn.relu(dense(x, strength=strength))
    x = nn.with_logical_constraint(x, ("batch", "mlp"))
    x = nn.Dropout(cfg.dropout, deterministic=deterministic)(x)
    head = self.dense("head", cfg.num_classes, ("embed", None))
    return head(x, strength=strength)

  @nn.nowrap
  def example_call(self, params: Any) -> Call:
    """Returns an image, as shapes, that is one pixel high before ``dense``."""
    channels = self.cfg.channels
    width = params["dense"]["kernel"].shape[0] // channels[-1]
    side = 2 ** len(channels)
    c_in = params["conv_0_0"]["kernel"].shape[-2]
    shape = (1, side, side * width, c_in)
    return (jax.ShapeDtypeStruct(shape, jnp.float32),), {}
