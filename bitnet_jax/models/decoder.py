"""Causal language models: GPT, Llama, Mistral, BitNet b1.58 by their sizes."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from bitnet_jax.layers.attention import make_mask
from bitnet_jax.models import embedding, sizes, transformer
from bitnet_jax.models.cache import Cache, extend
from bitnet_jax.models.transformer import Context
from bitnet_jax.quantizers.recipe import Rules


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(transformer.TransformerConfig):
  """Sizes of a ``Decoder``.

  Attributes:
    tie_embeddings: whether the embeddings are also the output layer, which then
      stays in full precision; else that is the layer ``head``.
    vocab_size: number of tokens.
  """

  tie_embeddings: bool
  vocab_size: int

  def __post_init__(self):
    super().__post_init__()
    sizes.check_positive(vocab_size=self.vocab_size)


class Decoder(nn.Module):
  """A stack of causal blocks between embeddings and logits.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths, such as ``blocks/attention/query`` and ``head``.
  """

  cfg: DecoderConfig
  recipe: Rules

  def setup(self):  # noqa: D102
    self.embed = embedding.TokenEmbedding(self.cfg, self.cfg.vocab_size)
    self.blocks = transformer.make_blocks(self.cfg, self.recipe, is_causal=True)
    self.final_norm = transformer.make_norm(self.cfg)
    if not self.cfg.tie_embeddings:
      self.head = embedding.make_head(
        self.cfg, self.cfg.vocab_size, self.recipe
      )

  def __call__(
    self,
    tokens: Int[Array, "b t"],
    *,
    segment_ids: Int[Array, "b t"] | None = None,
    positions: Int[Array, "b t"] | None = None,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Float[Array, "b t v"]:
    """Returns logits of the token that follows each token.

    Args:
      tokens: ids.
      segment_ids: number of the document of each token, 0 for padding; a token
        sees its own document only. ``None`` for one document.
      positions: of the tokens in their documents; by default 0, 1, ...
      deterministic: whether dropout is off.
      strength: share of quantization in force, see ``BitDense``.

    Raises:
      ValueError: for sequences longer than the model.
    """
    transformer.check_length(self.cfg, tokens.shape[1])
    mask = None
    if segment_ids is not None:
      places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
      mask = make_mask(
        positions=(places, places), segments=(segment_ids, segment_ids)
      )
    context = Context(
      mask=mask,
      positions=positions,
      strength=strength,
      deterministic=deterministic,
    )
    x = self.embed(tokens, positions, deterministic=deterministic)
    x, _ = transformer.run_blocks(self.blocks, x, context)
    return self._logits(x, strength)

  def decode(
    self,
    tokens: Int[Array, "b t"],
    positions: Int[Array, "b t"],
    cache: Cache,
    *,
    strength: ArrayLike | None = None,
  ) -> tuple[Float[Array, "b t v"], Cache]:
    """Returns logits of what follows, given all tokens so far.

    Args:
      tokens: the next ones, ids.
      positions: theirs; -1 for filling, in front of shorter prompts.
      cache: of the tokens before, see ``make_cache``; there must be room.
      strength: share of quantization in force, see ``BitDense``.

    Returns:
      Logits, and the cache after these tokens.
    """
    cache, context = extend(cache, positions)
    x, blocks = transformer.run_blocks(
      self.blocks,
      self.embed(tokens, positions),
      context.replace(strength=strength),
      cache.blocks,
    )
    cache = cache.replace(blocks=blocks, index=cache.index + tokens.shape[1])
    return self._logits(x, strength), cache

  def _logits(self, x, strength):
    x = self.final_norm(x)
    if self.cfg.tie_embeddings:
      logits = self.embed.attend(x)
    else:
      logits = self.head(x, strength=strength)
    return nn.with_logical_constraint(logits, ("batch", "length", "vocab"))
