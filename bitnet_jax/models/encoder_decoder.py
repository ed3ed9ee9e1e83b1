"""Encoder-decoders of text, as T5."""

import dataclasses

import flax.linen as nn
from jaxtyping import Array, ArrayLike, Float, Int

from bitnet_jax.layers.attention import make_mask
from bitnet_jax.models import embedding, sizes, transformer
from bitnet_jax.models.cache import Cache, extend
from bitnet_jax.models.transformer import Context
from bitnet_jax.quantizers.recipe import Rules


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
  tie_embeddings: bool
  vocab_size: int

  def __post_init__(self):
    super().__post_init__()
    sizes.check_positive(
      num_decoder_layers=self.num_decoder_layers, vocab_size=self.vocab_size
    )

  @property
  def decoder(self) -> "EncoderDecoderConfig":
    """The same sizes, with the decoder's number of layers."""
    return dataclasses.replace(self, num_layers=self.num_decoder_layers)


class EncoderDecoder(nn.Module):
  """An encoder, and a decoder that attends to what it returns.

  Both share the embeddings.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths, such as ``encoder/attention/query``, ``decoder/feed_forward/up``
      and ``head``.
  """

  cfg: EncoderDecoderConfig
  recipe: Rules

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
      self.head = embedding.make_head(cfg, cfg.vocab_size, self.recipe)

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
      inputs: what is encoded, ids.
      tokens: what is decoded, ids, starting with a start token.
      input_mask: 1 for inputs, 0 for padding, which is masked.
      deterministic: whether dropout is off.
      strength: share of quantization in force, see ``BitDense``.

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
    """Returns the memory that the decoder attends to; see ``__call__``."""
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
      cache: of the tokens before, see ``make_cache``; there must be room.
      memory: of ``encode``; needed in the first call, remembered after it.
      input_mask: that of ``encode``, in every call.
      strength: share of quantization in force, see ``BitDense``.

    Returns:
      Logits, and the cache after these tokens.
    """
    cache, context = extend(cache, positions)
    context = context.replace(
      memory=memory, memory_mask=_memory_mask(input_mask), strength=strength
    )
    x = self.embed(tokens, positions)
    x, blocks = transformer.run_blocks(self.decoder, x, context, cache.blocks)
    cache = cache.replace(blocks=blocks, index=cache.index + tokens.shape[1])
    return self._logits(x, strength), cache

  def _logits(self, x, strength):
    x = self.decoder_norm(x)
    if self.cfg.tie_embeddings:
      logits = self.embed.attend(x)
    else:
      logits = self.head(x, strength=strength)
    return nn.with_logical_constraint(logits, ("batch", "length", "vocab"))


def _memory_mask(input_mask):
  return None if input_mask is None else (input_mask > 0)[:, None, None]
