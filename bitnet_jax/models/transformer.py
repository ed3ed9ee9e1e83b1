"""Blocks and stacks that all transformers share."""

import dataclasses
import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from bitnet_jax.layers import norms
from bitnet_jax.layers.attention import Attention, AttentionCache
from bitnet_jax.layers.dense import STACKS
from bitnet_jax.layers.feed_forward import KINDS, FeedForward
from bitnet_jax.models.base import ModelConfig
from bitnet_jax.ops.products import PRODUCT
from bitnet_jax.quantizers.recipe import Rules

POSITIONS = ("rotary", "learned")
NORMS = ("rms_norm", "layer_norm")
REMAT = {
  "none": None,
  "full": jax.checkpoint_policies.nothing_saveable,
  # Outputs in the dtype of the layer; ``dots_saveable`` would save int32 sums.
  "products": jax.checkpoint_policies.save_only_these_names(PRODUCT),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(ModelConfig):
  """Sizes that all transformers share.

  Attributes:
    hidden: model width.
    num_layers: blocks of a stack.
    num_heads: heads of the queries.
    num_kv_heads: heads of keys and values; divides ``num_heads``.
    head_dim: features of a head; ``None`` for ``hidden / num_heads``.
    mlp_width: hidden width of the feed-forward layers.
    feed_forward: kind of the feed-forward layers, a name in ``KINDS``.
    norm: in front of each part of a block: "rms_norm" or "layer_norm", with a
      scale.
    norm_eps: added to the variance.
    sub_norm: whether the same norm also stands in front of the output
      projections (BitNet b1.58 2B4T).
    use_bias: whether projections have biases.
    positions: "rotary" or "learned".
    rotary_base: base of the wavelengths of rotary positions.
    max_length: longest sequence, in tokens (or patches).
    dropout: rate on embeddings and on what each part of a block adds.
    scan_layers: whether one block is scanned over stacked parameters, which
      compiles faster; else each block has a name and may have its own recipe.
    remat: what the backward pass recomputes: nothing ("none"), all but the
      products with weights ("products"), or everything ("full").
    dtype: dtype of activations, a name in ``DTYPES``.
    param_dtype: dtype of the latent weights, a name in ``DTYPES``.
  """

  hidden: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int | None = None
  mlp_width: int
  feed_forward: str = "swiglu"
  norm: str = "rms_norm"
  norm_eps: float = 1e-5
  sub_norm: bool = False
  use_bias: bool = False
  positions: str = "rotary"
  rotary_base: float = 10_000.0
  max_length: int
  scan_layers: bool = True
  remat: str = "none"

  def __post_init__(self):
    super().__post_init__()
    self.check_choices(
      feed_forward=KINDS, norm=NORMS, positions=POSITIONS, remat=REMAT
    )
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f"model.num_kv_heads is {self.num_kv_heads}; it must divide"
        f" model.num_heads, {self.num_heads}"
      )
    if self.head_dim is None and self.hidden % self.num_heads:
      raise ValueError(
        f"model.num_heads is {self.num_heads}; it must divide model.hidden,"
        f" {self.hidden}, if model.head_dim is None"
      )
    if self.positions == "rotary" and self.features_of_head % 2:
      raise ValueError(
        f"a head has {self.features_of_head} features (model.head_dim, or"
        " model.hidden / model.num_heads); rotary positions need an even number"
      )

  @property
  def features_of_head(self) -> int:
    """Features of a head."""
    return self.head_dim or self.hidden // self.num_heads

  @property
  def block_options(self) -> dict[str, Any]:
    """Arguments that attention and feed-forward layers share."""
    return {
      "use_bias": self.use_bias,
      "norm": functools.partial(make_norm, self) if self.sub_norm else None,
      "partition": nn.with_logical_partitioning,
      **self.dtypes,
    }


def make_norm(cfg: TransformerConfig, name: str | None = None) -> nn.Module:
  """Returns the norm that ``cfg`` asks for; its statistics are in float32."""
  cls = {"rms_norm": norms.RMSNorm, "layer_norm": norms.LayerNorm}[cfg.norm]
  scale_init = nn.initializers.ones_init()
  return cls(
    epsilon=cfg.norm_eps,
    scale_init=nn.with_logical_partitioning(scale_init, ("embed",)),
    name=name,
    **cfg.dtypes,
  )


class Context(flax.struct.PyTreeNode):
  """Inputs that all blocks of a stack share.

  Attributes:
    memory: sequence for cross-attention, [b, s, d].
    mask: which tokens each token sees, [b, 1, t, s]; ``None`` for all.
    memory_mask: which of the memory each token sees; ``None`` for all.
    positions: positions of the tokens, [b, t]; ``None`` for 0, 1, ...
    index: place of the first token in the cache.
    strength: fraction of quantization, in [0, 1]; ``None`` for all of it.
    deterministic: whether dropout is off.
  """

  memory: jax.Array | None = None
  mask: jax.Array | None = None
  memory_mask: jax.Array | None = None
  positions: jax.Array | None = None
  index: Any = None
  strength: Any = None
  deterministic: bool = flax.struct.field(pytree_node=False, default=True)


class BlockCache(flax.struct.PyTreeNode):
  """Keys and values of the attentions of all blocks.

  Attributes:
    own: of self-attention.
    memory: memory of cross-attention, if there is one.
  """

  own: AttentionCache
  memory: AttentionCache | None = None


class Block(nn.Module):
  """Attention, attention to a memory if there is one, and feed-forward.

  Each part has a norm in front and adds to its input (pre-norm).

  Attributes:
    cfg: sizes.
    recipe: rules on the paths of the layers, or one recipe.
    is_causal: whether tokens see only those before, where no mask is given.
    has_memory: whether there is a memory.
  """

  cfg: TransformerConfig
  recipe: Rules
  is_causal: bool = False
  has_memory: bool = False

  @nn.compact
  def __call__(
    self,
    carry: tuple[Float[Array, "b t d"], BlockCache | None],
    layer: ArrayLike | None,
    context: Context,
  ) -> tuple[tuple[Float[Array, "b t d"], BlockCache | None], None]:
    """Returns the output and the cache after this call, and no other result.

    Args:
      carry: input, and the cache of all blocks.
      layer: number of this block in the cache, if there is one.
      context: inputs that all blocks share.
    """
    (x, cache), cfg, strength = carry, self.cfg, context.strength
    layer = 0 if layer is None else layer
    drop = functools.partial(_drop, cfg, context)
    rotary = cfg.rotary_base if cfg.positions == "rotary" else None
    x = _constrain(x)
    y, own = self._attention("attention", rotary)(
      make_norm(cfg, "attention_norm")(x),
      mask=context.mask,
      is_causal=self.is_causal and context.mask is None,
      positions=context.positions,
      cache=None if cache is None else cache.own,
      layer=layer,
      index=context.index,
      strength=strength,
    )
    x = x + drop(y)
    memory = None
    if self.has_memory:
      y, memory = self._attention("cross_attention", None)(
        make_norm(cfg, "cross_attention_norm")(x),
        context.memory,
        mask=context.memory_mask,
        cache=None if cache is None else cache.memory,
        layer=layer,
        strength=strength,
      )
      x = x + drop(y)
    feed_forward = FeedForward(
      cfg.mlp_width,
      kind=cfg.feed_forward,
      recipe=self.recipe,
      name="feed_forward",
      **cfg.block_options,
    )
    y = feed_forward(make_norm(cfg, "feed_forward_norm")(x), strength=strength)
    x = _constrain(x + drop(y))
    return (x, None if own is None else BlockCache(own, memory)), None

  def _attention(self, name, rotary_base):
    return Attention(
      num_heads=self.cfg.num_heads,
      num_kv_heads=self.cfg.num_kv_heads,
      head_dim=self.cfg.features_of_head,
      rotary_base=rotary_base,
      recipe=self.recipe,
      name=name,
      **self.cfg.block_options,
    )


def _drop(cfg, context, x):
  return nn.Dropout(cfg.dropout, deterministic=context.deterministic)(x)


def _constrain(x):
  return nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))


def make_blocks(cfg: TransformerConfig, recipe: Rules, **options: Any) -> Any:
  """Returns the blocks of a model, scanned or one by one.

  Args:
    cfg: sizes.
    recipe: rules on the paths of all layers, or one recipe.
    **options: attributes of ``Block``; a ``name``, unless made in a ``setup``.

  Returns:
    One block scanned over stacked parameters, or a list of blocks.
  """
  block = Block
  if cfg.remat != "none":
    prevent_cse = not cfg.scan_layers
    block = nn.remat(Block, policy=REMAT[cfg.remat], prevent_cse=prevent_cse)
  if not cfg.scan_layers:
    name = options.pop("name", None)
    return [
      block(cfg, recipe, name=name and f"{name}_{i}", **options)
      for i in range(cfg.num_layers)
    ]
  scanned = nn.scan(
    block,
    variable_axes={"params": 0},
    variable_broadcast=STACKS,
    split_rngs={"params": True, "dropout": True, "quantize": True},
    in_axes=(0, nn.broadcast),
    length=cfg.num_layers,
    metadata_params={nn.PARTITION_NAME: "layers"},
  )
  return scanned(cfg, recipe, **options)


def run_blocks(
  blocks: Any,
  x: Float[Array, "b t d"],
  context: Context,
  cache: BlockCache | None = None,
) -> tuple[Float[Array, "b t d"], BlockCache | None]:
  """Runs what ``make_blocks`` returned.

  Args:
    blocks: blocks of the model.
    x: embedded tokens.
    context: inputs that all blocks share.
    cache: cache of all blocks.

  Returns:
    The output, and the cache after this call.
  """
  carry = x, cache
  if isinstance(blocks, (list, tuple)):
    for layer, block in enumerate(blocks):
      carry, _ = block(carry, layer, context)
  else:
    layers = None if cache is None else jnp.arange(len(cache.own.keys))
    carry, _ = blocks(carry, layers, context)
  return carry


def check_length(cfg: TransformerConfig, length: int) -> None:
  """Raises a ValueError for a sequence that the model has no positions for."""
  if length > cfg.max_length:
    raise ValueError(
      f"the sequence has {length} tokens, more than model.max_length,"
      f" {cfg.max_length}"
    )
