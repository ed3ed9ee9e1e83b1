"""Vision transformers (2010.11929)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from bitnet_jax.models import transformer
from bitnet_jax.models.base import Call, Model
from bitnet_jax.models.transformer import Context


@dataclasses.dataclass(frozen=True, kw_only=True)
class VitConfig(transformer.TransformerConfig):
  """Sizes of a ``Vit``, with other defaults than texts have.

  Attributes:
    patch: side of a patch, in pixels; divides height and width of the images.
    num_classes: number of outputs.
  """

  patch: int
  num_classes: int
  feed_forward: str = "gelu"
  norm: str = "layer_norm"
  norm_eps: float = 1e-6
  use_bias: bool = True
  positions: str = "learned"


class Vit(Model):
  """``patches``, a stack of blocks with attention both ways, mean, ``head``.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths, such as ``patches`` and ``blocks/attention/query``.
  """

  cfg: VitConfig

  @nn.compact
  def __call__(
    self,
    x: Num[Array, "b height width channels"],
    *,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Float[Array, "b num_classes"]:
    """Returns logits.

    Raises:
      ValueError: for images that do not consist of patches, or of too many.
    """
    cfg = self.cfg
    x = split_patches(x, cfg.patch)
    transformer.check_length(cfg, x.shape[1])
    patches = self.dense("patches", cfg.hidden, (None, "embed"))
    x = patches(x, strength=strength)
    if cfg.positions == "learned":
      positions: Any = self.param(
        "positions",
        nn.with_logical_partitioning(
          nn.initializers.normal(0.02), (None, "embed")
        ),
        (x.shape[1], cfg.hidden),
        cfg.dtypes["param_dtype"],
      )
      x = x + positions[None].astype(x.dtype)
    x = nn.Dropout(cfg.dropout, deterministic=deterministic)(x)
    context = Context(strength=strength, deterministic=deterministic)
    blocks = transformer.make_blocks(cfg, self.recipe, name="blocks")
    x, _ = transformer.run_blocks(blocks, x, context)
    x = jnp.mean(transformer.make_norm(cfg, "final_norm")(x), axis=1)
    axes = ("embed", "vocab")
    head = self.dense("head", cfg.num_classes, axes, use_bias=cfg.use_bias)
    return head(x, strength=strength)

  @nn.nowrap
  def example_call(self, params: Any) -> Call:
    """Returns an image, as shapes, with a row of all patches it can have."""
    patch = self.cfg.patch
    count = params["positions"].shape[0] if "positions" in params else 1
    c_in = params["patches"]["kernel"].shape[0] // patch**2
    shape = (1, patch, patch * count, c_in)
    return (jax.ShapeDtypeStruct(shape, jnp.float32),), {}


def split_patches(
  x: Num[Array, "b height width channels"], patch: int
) -> Num[Array, "b patches values"]:
  """Cuts images into square patches, row by row, each one a vector.

  Raises:
    ValueError: for sides that are no multiple of ``patch``.
  """
  b, height, width, channels = x.shape
  if height % patch or width % patch:
    raise ValueError(
      f"model.patch is {patch}, which must divide both sides of the images,"
      f" {height} x {width}"
    )
  x = x.reshape(b, height // patch, patch, width // patch, patch, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, -1, patch * patch * channels)
