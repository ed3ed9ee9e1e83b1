"""Bidirectional encoders of text, as BERT."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from bitnet_jax.layers.attention import make_mask
from bitnet_jax.models import embedding, transformer
from bitnet_jax.models.base import Model
from bitnet_jax.models.transformer import Context, TransformerConfig

POOLINGS = ("first", "mean")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(TransformerConfig):
  """Sizes of an ``Encoder``.

  Attributes:
    num_types: kinds of segments that have embeddings of their own, such as the
      two sentences of a pair; 0 for none.
    pooling: what the pooler reads of the tokens: "first", or the "mean" of all;
      "first" where every token has logits.
    vocab_size: number of tokens.
    num_classes: outputs for a whole sequence, 1 for a number; ``None`` for
      logits of every token, as masked language models have.
  """

  num_types: int = dataclasses.field(default=2, metadata={"least": 0})
  pooling: str = "first"
  vocab_size: int
  num_classes: int | None

  def __post_init__(self):
    super().__post_init__()
    self.check_choices(pooling=POOLINGS)
    if self.num_classes is None and self.pooling != "first":
      raise ValueError(
        f"model.pooling is {self.pooling!r}, but nothing is pooled where every"
        " token has logits; it must be 'first' there"
      )


class Encoder(Model):
  """A stack of blocks with attention both ways, and a head.

  The head of a masked language model is ``transform`` and then the embeddings
  themselves, with a bias; that of a classifier is ``pooler`` on what is
  pooled of the tokens and then ``head``.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths, such as ``blocks/attention/query`` and ``transform``.
  """

  cfg: EncoderConfig

  @nn.compact
  def __call__(
    self,
    tokens: Int[Array, "b t"],
    *,
    segment_ids: Int[Array, "b t"] | None = None,
    type_ids: Int[Array, "b t"] | None = None,
    positions: Int[Array, "b t"] | None = None,
    places: Int[Array, "b k"] | None = None,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Float[Array, "b *t outputs"]:
    """Returns logits, [b, t, v], or [b, k, v] for places, or [b, num_classes].

    Args:
      tokens: ids.
      segment_ids: number of the document of each token, 0 for padding; a token
        sees its own document only. ``None`` for one document.
      type_ids: below ``num_types``; by default 0.
      positions: of the tokens in their documents; by default 0, 1, ...
      places: indices of the tokens whose logits a masked language model is to
        return, each below t; by default all.
      deterministic: whether dropout is off.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.

    Raises:
      ValueError: for sequences longer than the model, and for places if there
        are classes of a whole sequence.
    """
    cfg = self.cfg
    if places is not None and cfg.num_classes is not None:
      raise ValueError("places are of a model of tokens; this has num_classes")
    transformer.check_length(cfg, tokens.shape[1])
    embed = embedding.TokenEmbedding(cfg, cfg.vocab_size, name="embed")
    x = embed(tokens, positions, deterministic=deterministic)
    if cfg.num_types:
      types = embedding.make_table(cfg, cfg.num_types, None, name="types")
      x = x + types(jnp.zeros_like(tokens) if type_ids is None else type_ids)
    mask = None
    if segment_ids is not None:
      mask = make_mask(segments=(segment_ids, segment_ids))
    context = Context(
      mask=mask,
      positions=positions,
      strength=strength,
      deterministic=deterministic,
    )
    blocks = transformer.make_blocks(cfg, self.recipe, name="blocks")
    x, _ = transformer.run_blocks(blocks, x, context)
    x = transformer.make_norm(cfg, "final_norm")(x)
    if cfg.num_classes is None:
      if places is not None:
        x = jnp.take_along_axis(x, places[..., None], axis=1)
      return self._predict_tokens(x, embed, strength)
    x = x[:, 0] if cfg.pooling == "first" else _mean(x, segment_ids)
    pooler = self.dense("pooler", cfg.hidden, ("embed", "mlp"))
    x = jnp.tanh(pooler(x, strength=strength))
    x = nn.Dropout(cfg.dropout, deterministic=deterministic)(x)
    axes = ("embed", "vocab")
    head = self.dense("head", cfg.num_classes, axes, use_bias=cfg.use_bias)
    return head(x, strength=strength)

  def _predict_tokens(self, x, embed, strength):
    """Returns logits of tokens, as masked language models have them."""
    cfg = self.cfg
    transform = self.dense("transform", cfg.hidden, ("embed", "mlp"))
    x = nn.gelu(transform(x, strength=strength))
    logits = embed.attend(transformer.make_norm(cfg, "transform_norm")(x))
    bias: Any = self.param(
      "bias",
      nn.with_logical_partitioning(nn.initializers.zeros_init(), ("vocab",)),
      (cfg.vocab_size,),
      cfg.dtypes["param_dtype"],
    )
    logits = logits + bias.astype(logits.dtype)[None, None]
    return nn.with_logical_constraint(logits, ("batch", "length", "vocab"))


def _mean(x, segment_ids):
  """Returns the mean over the tokens that are not padding."""
  if segment_ids is None:
    return jnp.mean(x, axis=1)
  mask = (segment_ids > 0).astype(x.dtype)[..., None]
  return jnp.sum(x * mask, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)
