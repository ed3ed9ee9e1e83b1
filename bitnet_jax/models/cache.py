"""What a decoder remembers while it writes."""

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from bitnet_jax.layers.attention import AttentionCache, make_mask
from bitnet_jax.models import sizes
from bitnet_jax.models.transformer import (
  BlockCache,
  Context,
  TransformerConfig,
  check_length,
)


class Cache(flax.struct.PyTreeNode):
  """What a decoder remembers of the tokens before.

  Attributes:
    blocks: of all blocks, stacked along a leading axis.
    positions: of the tokens kept, [b, s]; -1 for filling, and for room.
    index: how many places are taken, int32 scalar.
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
    shape = (cfg.num_layers, batch, length)
    shape += (cfg.num_kv_heads, cfg.features_of_head)
    empty = jnp.zeros(shape, sizes.DTYPES[cfg.dtype])
    return AttentionCache(empty, empty)

  memory = None if memory_length is None else room(memory_length)
  positions = jnp.full((batch, length), -1, jnp.int32)
  return Cache(BlockCache(room(length), memory), positions, jnp.int32(0))


def extend(cache: Cache, positions: Int[Array, "b t"]) -> tuple[Cache, Context]:
  """Takes tokens into a cache: its places, and the context of their call.

  Args:
    cache: before the call.
    positions: of the tokens; -1 for padding, which is masked.

  Returns:
    The cache with the positions noted, and what the blocks are to be given.
  """
  # Places are all of one dtype.
  row = jnp.zeros_like(cache.index)
  kept = jax.lax.dynamic_update_slice(
    cache.positions, positions, (row, cache.index)
  )
  context = Context(
    mask=make_mask(positions=(positions, kept)),
    positions=positions,
    index=cache.index,
  )
  return cache.replace(positions=kept), context
