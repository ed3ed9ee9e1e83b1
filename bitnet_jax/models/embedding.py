"""Token embeddings and output heads of transformers."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from bitnet_jax.layers import BitDense
from bitnet_jax.models.transformer import TransformerConfig


class TokenEmbedding(nn.Module):
  """Full-precision embeddings of tokens and learned positions, and dropout.

  Attributes:
    cfg: sizes.
    vocab_size: number of tokens.
  """

  cfg: TransformerConfig
  vocab_size: int

  def setup(self):  # noqa: D102
    cfg = self.cfg
    self.tokens = make_table(cfg, self.vocab_size, "vocab")
    if cfg.positions == "learned":
      self.positions = make_table(cfg, cfg.max_length, None)
    self.drop = nn.Dropout(self.cfg.dropout)

  def __call__(
    self,
    tokens: Int[Array, "b t"],
    positions: Int[Array, "b t"] | None = None,
    *,
    deterministic: bool = True,
  ) -> Float[Array, "b t d"]:
    """Returns the embedded tokens, after dropout."""
    x = self.tokens(tokens)
    if self.cfg.positions == "learned":
      if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
      x = x + self.positions(jnp.maximum(positions, 0))
    return self.drop(x, deterministic=deterministic)

  def attend(self, x: Float[Array, "b t d"]) -> Float[Array, "b t v"]:
    """Returns logits by the embeddings themselves."""
    return self.tokens.attend(x)


def make_table(
  cfg: TransformerConfig, size: int, axis: str | None, **name: Any
) -> nn.Embed:
  """Returns an embedding table.

  Args:
    cfg: sizes.
    size: number of embeddings.
    axis: logical axis that numbers them.
    **name: of the table, unless made in a ``setup``.
  """
  init = nn.initializers.normal(0.02)
  return nn.Embed(
    size,
    cfg.hidden,
    embedding_init=nn.with_logical_partitioning(init, (axis, "embed")),
    **cfg.dtypes,
    **name,
  )


def vocabulary_logits(
  embed: TokenEmbedding,
  head: BitDense | None,
  x: Float[Array, "b t d"],
  strength: ArrayLike | None,
) -> Float[Array, "b t v"]:
  """Returns logits of tokens by a head; without one by the embeddings."""
  logits = embed.attend(x) if head is None else head(x, strength=strength)
  return nn.with_logical_constraint(logits, ("batch", "length", "vocab"))
