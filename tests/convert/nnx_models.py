"""An NNX model that knows nothing of this package."""

import jax.numpy as jnp
from flax import nnx


class Block(nnx.Module):
  """Attention, and a feed-forward layer that is shared by all blocks."""

  def __init__(self, width, up, rngs):
    self.attention = nnx.MultiHeadAttention(
      num_heads=4, in_features=width, decode=False, rngs=rngs
    )
    self.up = up
    self.down = nnx.Linear(64, width, rngs=rngs)
    self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])

  def __call__(self, x):
    x = x + self.attention(self.norms[0](x))
    return x + self.down(nnx.gelu(self.up(self.norms[1](x))))


class Transformer(nnx.Module):
  """Blocks on sequences of vectors."""

  def __init__(self, rngs, width=32, blocks=2, inputs=8, outputs=10):
    self.embed = nnx.Linear(inputs, width, rngs=rngs)
    up = nnx.Linear(width, 64, rngs=rngs)
    self.blocks = nnx.List([Block(width, up, rngs) for _ in range(blocks)])
    self.out = nnx.Linear(width, outputs, rngs=rngs)

  def __call__(self, x):
    x = self.embed(x)
    for block in self.blocks:
      x = block(x)
    return self.out(jnp.mean(x, axis=1))
