"""Key-value cache of a decoder, for generating token by token."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bitnet_jax.layers.attention import AttentionCache, make_mask
from bitnet_jax.models.transformer import (
  BlockCache,
  Context,
  TransformerConfig,
  check_length,
  run_blocks,
)


class Cache(flax.struct.PyTreeNode):
  """Keys and values of a decoder for the tokens so far.

  Attributes:
    blocks: keys and values of all blocks.
    positions: of the cached tokens, [b, s]; -1 for padding and free places.
    index: number of places taken, int32 scalar.
  """

  blocks: BlockCache
  positions: jax.Array
  index: jax.Array

  def reorder(self, rows: Int[Array, " b"]) -> "Cache":
    """Returns the cache with other sequences: row i is the old ``rows[i]``."""
    blocks = jax.tree.map(lambda a: jnp.take(a, rows, axis=1), self.blocks)
    return self.replace(
      blocks=blocks, positions=jnp.take(self.positions, rows, axis=0)
    )


def make_cache(
  cfg: TransformerConfig,
  *,
  batch: int,
  length: int,
  memory_length: int | None = None,
) -> Cache:
  """Returns an empty cache.

  Args:
    cfg: sizes of the decoder.
    batch: sequences.
    length: tokens of each to make room for.
    memory_length: length of the memory, if the decoder attends to one.

  Raises:
    ValueError: if the model has no positions for so many tokens.
  """
  check_length(cfg, length)

  def room(length):
    shape = (cfg.num_layers, batch, cfg.num_kv_heads)
    shape += (length, cfg.features_of_head)
    empty = jnp.zeros(shape, cfg.dtypes["dtype"])
    return AttentionCache(empty, empty)

  memory = None if memory_length is None else room(memory_length)
  positions = jnp.full((batch, length), -1, jnp.int32)
  return Cache(BlockCache(room(length), memory), positions, jnp.int32(0))


def run_with_cache(
  blocks: Any,
  x: Float[Array, "b t d"],
  positions: Int[Array, "b t"],
  cache: Cache,
  **context: Any,
) -> tuple[Float[Array, "b t d"], Cache]:
  """Runs the blocks of a decoder on the next tokens.

  Args:
    blocks: blocks of the decoder.
    x: embedded tokens.
    positions: positions of the tokens; -1 for padding, which is masked.
    cache: cache of the tokens before, with room for these.
    **context: other fields of ``Context``.

  Returns:
    The output, and the cache after these tokens.
  """
  row = jnp.zeros_like(cache.index)  # All parts of a place have one dtype.
  seen = jax.lax.dynamic_update_slice(
    cache.positions, positions, (row, cache.index)
  )
  shared = Context(
    mask=make_mask(positions=(positions, seen)),
    positions=positions,
    index=cache.index,
    **context,
  )
  x, of_blocks = run_blocks(blocks, x, shared, cache.blocks)
  assert of_blocks is not None  # As a cache was given.
  return x, Cache(of_blocks, seen, cache.index + x.shape[1])
