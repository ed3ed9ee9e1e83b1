"""Causal language models: GPT, Llama, Mistral, BitNet b1.58 by their sizes."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from bitnet_jax.layers.attention import make_mask
from bitnet_jax.models import embedding, transformer
from bitnet_jax.models.base import Model
from bitnet_jax.models.cache import Cache, run_with_cache
from bitnet_jax.models.transformer import Context


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(transformer.TransformerConfig):
  """Sizes of a ``Decoder``.

  Attributes:
    tie_embeddings: whether the embeddings are also the output layer, which then
      stays in full precision; else that is the layer ``head``.
    vocab_size: number of tokens.
  """

  tie_embeddings: bool = False
  vocab_size: int


class Decoder(Model):
  """A stack of causal blocks between embeddings and logits.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths, such as ``blocks/attention/query`` and ``head``.
  """

  cfg: DecoderConfig

  def setup(self):  # noqa: D102
    self.embed = embedding.TokenEmbedding(self.cfg, self.cfg.vocab_size)
    self.blocks = transformer.make_blocks(self.cfg, self.recipe, is_causal=True)
    self.final_norm = transformer.make_norm(self.cfg)
    if not self.cfg.tie_embeddings:
      self.head = self.dense(
        None,
        self.cfg.vocab_size,
        ("embed", "vocab"),
        use_bias=self.cfg.use_bias,
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
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.

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
      positions: theirs; -1 for padding, in front of shorter prompts.
      cache: of the tokens before, from ``make_cache``, with room for these.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.

    Returns:
      Logits, and the cache after these tokens.
    """
    x = self.embed(tokens, positions)
    x, cache = run_with_cache(
      self.blocks, x, positions, cache, strength=strength
    )
    return self._logits(x, strength), cache

  def _logits(self, x, strength):
    head = None if self.cfg.tie_embeddings else self.head
    x = self.final_norm(x)
    return embedding.vocabulary_logits(self.embed, head, x, strength)
