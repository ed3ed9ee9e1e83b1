"""Vision transformers (2010.11929)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from bitnet_jax.layers import BitDense
from bitnet_jax.models import embedding, sizes, transformer
from bitnet_jax.models.transformer import Context
from bitnet_jax.quantizers.recipe import Rules, recipe_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class VitConfig(transformer.TransformerConfig):
  """Sizes of a ``Vit``.

  Attributes:
    patch: side of a patch, in pixels; divides height and width of the images.
    num_classes: number of outputs.
  """

  patch: int
  num_classes: int

  def __post_init__(self):
    super().__post_init__()
    sizes.check_positive(patch=self.patch)


class Vit(nn.Module):
  """``patches``, a stack of blocks with attention both ways, mean, ``head``.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths, such as ``patches`` and ``blocks/attention/query``.
  """

  cfg: VitConfig
  recipe: Rules

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
    init = nn.initializers.lecun_normal()
    patches = BitDense(
      cfg.hidden,
      kernel_init=nn.with_logical_partitioning(init, (None, "embed")),
      recipe=recipe_at(self.recipe, "patches"),
      name="patches",
      **cfg.dtypes,
    )
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
    head = embedding.make_head(cfg, cfg.num_classes, self.recipe, name="head")
    return head(x, strength=strength)


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
      f"model.patch is {patch}, which divides not both sides of the images,"
      f" {height} x {width}"
    )
  x = x.reshape(b, height // patch, patch, width // patch, patch, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, -1, patch * patch * channels)
