"""Encoder-decoders of text, as T5."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from bitnet_jax.layers.attention import make_mask
from bitnet_jax.models import embedding, transformer
from bitnet_jax.models.base import Call, Model
from bitnet_jax.models.cache import Cache, run_with_cache
from bitnet_jax.models.transformer import Context


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(transformer.TransformerConfig):
  """Sizes of an ``EncoderDecoder``.

  Attributes:
    num_decoder_layers: blocks of the decoder; ``num_layers`` are the encoder's.
    tie_embeddings: whether the embeddings are also the output layer, which then
      stays in full precision; else that is the layer ``head``.
    vocab_size: number of tokens.
  """

  num_decoder_layers: int
  tie_embeddings: bool = False
  vocab_size: int

  @property
  def decoder(self) -> "EncoderDecoderConfig":
    """The same sizes, with the decoder's number of layers."""
    return dataclasses.replace(self, num_layers=self.num_decoder_layers)


class EncoderDecoder(Model):
  """An encoder, and a decoder that attends to what it returns.

  Both share the embeddings.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths, such as ``encoder/attention/query``, ``decoder/feed_forward/up``
      and ``head``.
  """

  cfg: EncoderDecoderConfig

  def setup(self):  # noqa: D102
    cfg = self.cfg
    self.embed = embedding.TokenEmbedding(cfg, cfg.vocab_size)
    self.encoder = transformer.make_blocks(cfg, self.recipe)
    self.encoder_norm = transformer.make_norm(cfg)
    self.decoder = transformer.make_blocks(
      cfg.decoder, self.recipe, is_causal=True, has_memory=True
    )
    self.decoder_norm = transformer.make_norm(cfg)
    if not cfg.tie_embeddings:
      self.head = self.dense(
        None, cfg.vocab_size, ("embed", "vocab"), use_bias=cfg.use_bias
      )

  def __call__(
    self,
    inputs: Int[Array, "b s"],
    tokens: Int[Array, "b t"],
    *,
    input_mask: Int[Array, "b s"] | None = None,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Float[Array, "b t v"]:
    """Returns logits of the token that follows each of ``tokens``.

    Args:
      inputs: ids that the encoder reads.
      tokens: ids that the decoder reads, starting with a start token.
      input_mask: 1 for inputs, 0 for padding, which is masked.
      deterministic: whether dropout is off.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.

    Raises:
      ValueError: for sequences longer than the model.
    """
    transformer.check_length(self.cfg, tokens.shape[1])
    memory = self.encode(
      inputs,
      input_mask=input_mask,
      deterministic=deterministic,
      strength=strength,
    )
    context = Context(
      memory=memory,
      memory_mask=_memory_mask(input_mask),
      strength=strength,
      deterministic=deterministic,
    )
    x = self.embed(tokens, deterministic=deterministic)
    x, _ = transformer.run_blocks(self.decoder, x, context)
    return self._logits(x, strength)

  def encode(
    self,
    inputs: Int[Array, "b s"],
    *,
    input_mask: Int[Array, "b s"] | None = None,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Float[Array, "b s d"]:
    """Returns the memory that the decoder attends to.

    Args:
      inputs: ids.
      input_mask: 1 for inputs, 0 for padding, which is masked.
      deterministic: whether dropout is off.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.
    """
    transformer.check_length(self.cfg, inputs.shape[1])
    mask = None
    if input_mask is not None:
      mask = make_mask(segments=(input_mask, input_mask))
    context = Context(mask=mask, strength=strength, deterministic=deterministic)
    x = self.embed(inputs, deterministic=deterministic)
    x, _ = transformer.run_blocks(self.encoder, x, context)
    return self.encoder_norm(x)

  def decode(
    self,
    tokens: Int[Array, "b t"],
    positions: Int[Array, "b t"],
    cache: Cache,
    *,
    memory: Float[Array, "b s d"] | None = None,
    input_mask: Int[Array, "b s"] | None = None,
    strength: ArrayLike | None = None,
  ) -> tuple[Float[Array, "b t v"], Cache]:
    """Returns logits of what follows, given all tokens so far.

    Args:
      tokens: the next ones, ids.
      positions: theirs.
      cache: of the tokens before, from ``make_cache``, with room for these.
      memory: memory of ``encode``; needed in the first call, and cached by it.
      input_mask: that of ``encode``, in every call.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.

    Returns:
      Logits, and the cache after these tokens.
    """
    x, cache = run_with_cache(
      self.decoder,
      self.embed(tokens, positions),
      positions,
      cache,
      memory=memory,
      memory_mask=_memory_mask(input_mask),
      strength=strength,
    )
    return self._logits(x, strength), cache

  def _logits(self, x, strength):
    head = None if self.cfg.tie_embeddings else self.head
    x = self.decoder_norm(x)
    return embedding.vocabulary_logits(self.embed, head, x, strength)

  @nn.nowrap
  def example_call(self, params: Any) -> Call:
    """Returns arguments of a call, as shapes: one token each."""
    del params
    token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return (token, token), {}


def _memory_mask(input_mask):
  return None if input_mask is None else (input_mask > 0)[:, None, None]
