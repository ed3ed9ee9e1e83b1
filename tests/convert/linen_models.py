"""Models that know nothing of this package."""

import flax.linen as nn


class Cnn(nn.Module):
  """A convolutional network with batch norm."""

  @nn.compact
  def __call__(self, x, train=False):
    for width in (16, 32):
      x = nn.Conv(width, (3, 3), padding="SAME", use_bias=False)(x)
      x = nn.BatchNorm(use_running_average=not train)(x)
      x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
    x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
    return nn.Dense(10, name="out")(x)


class Transformer(nn.Module):
  """Attention and feed-forward blocks on sequences of vectors."""

  blocks: int = 2
  outputs: int = 10

  def setup(self):
    self.embed = nn.Dense(32)
    self.attention = [
      nn.MultiHeadDotProductAttention(num_heads=4) for _ in range(self.blocks)
    ]
    self.up = [nn.Dense(64) for _ in range(self.blocks)]
    self.down = [nn.Dense(32) for _ in range(self.blocks)]
    self.norms = [nn.LayerNorm() for _ in range(2 * self.blocks)]
    self.out = nn.Dense(self.outputs)

  def encode(self, x):
    x = self.embed(x)
    for i in range(self.blocks):
      y = self.norms[2 * i](x)
      x = x + self.attention[i](y, y)
      y = self.norms[2 * i + 1](x)
      x = x + self.down[i](nn.gelu(self.up[i](y)))
    return x

  def __call__(self, x):
    return self.out(self.encode(x).mean(axis=1))
