"""An NNX model with layers in all the places that NNX has, and a twin."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from bitnet_jax import BitConv, BitDense
from bitnet_jax import nnx as bit

ROWS = jax.random.normal(jax.random.key(3), (4, 8))
IMAGES = jax.random.normal(jax.random.key(4), (2, 6, 6, 4))


class Places(nnx.Module):
  """Layers in a list, a dict and a stack, twice in one place, and in float."""

  def __init__(self, rngs, *, width=8, depth=3, recipe="b158"):
    def layer(rngs):
      return bit.BitLinear(width, width, recipe=recipe, rngs=rngs)

    make = nnx.vmap(layer, in_axes=0, out_axes=0)
    self.blocks = nnx.List([layer(rngs), nnx.BatchNorm(width, rngs=rngs)])
    self.named = nnx.Dict({"one": layer(rngs)})
    self.again = self.named["one"]
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.stack = nnx.split_rngs(splits=depth)(make)(rngs)
    self.out = nnx.Linear(width, 2, rngs=rngs)

  def __call__(self, x):
    for block in self.blocks:
      x = block(x)
    x = self.again(self.drop(self.named["one"](x)))

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def through(x, layer):
      return layer(x)

    return self.out(through(x, self.stack))


class Net(nnx.Module):
  """A convolutional network, the twin of ``LinenNet``."""

  def __init__(self, rngs, dtype=jnp.float32):
    given = {"param_dtype": dtype, "rngs": rngs}
    self.conv = bit.BitConv(4, 8, (3, 3), **given)
    self.norm = nnx.BatchNorm(8, use_running_average=True, **given)
    self.hidden = bit.BitLinear(288, 16, recipe="b158_median", **given)
    self.out = nnx.Linear(16, 3, **given)

  def __call__(self, x):
    x = nnx.relu(self.norm(self.conv(x)))
    return self.out(nnx.relu(self.hidden(x.reshape(x.shape[0], -1))))


class LinenNet(nn.Module):
  """The twin of ``Net``."""

  @nn.compact
  def __call__(self, x):
    x = BitConv(8, (3, 3), name="conv")(x)
    x = nn.BatchNorm(use_running_average=True, name="norm")(x)
    x = nn.relu(x).reshape(x.shape[0], -1)
    x = nn.relu(BitDense(16, recipe="b158_median", name="hidden")(x))
    return nn.Dense(3, name="out")(x)


@nnx.jit
def call(model, *inputs):
  """Calls a model."""
  return model(*inputs)
