"""A layer finds its own recipe, and is a layer of Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from bitnet_jax import RECIPES, BitConv, BitDense, BitDenseGeneral
from bitnet_jax.layers import bit_layers

RULES = (("block.*/up", "int8"), (".*/down", "trilm"), ("head", "float"))
X = jnp.ones((2, 4))


class Block(nn.Module):
  """Two layers, in the form that ``nn.scan`` takes."""

  @nn.compact
  def __call__(self, x, _=None):
    x = BitDense(4, recipe=RULES, name="up")(x)
    return BitDenseGeneral(4, recipe=RULES, name="down")(x), None


class Model(nn.Module):
  """Blocks under a transform, and a head."""

  transform: str = "none"

  @nn.compact
  def __call__(self, x):
    if self.transform == "scan":
      scanned = nn.scan(
        Block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=2,
      )
      x, _ = scanned(name="blocks")(x, None)
    else:
      block = {"none": Block, "nn.jit": nn.jit(Block)}[self.transform]
      x, _ = block(name="block_0")(x)
    return BitDense(2, recipe=RULES, name="head")(x)


@pytest.mark.parametrize("transform", ("none", "nn.jit", "scan"))
def test_rules_decide_by_the_path_of_the_layer(transform):
  found = {
    layer.path.rpartition("/")[2]: layer.recipe
    for layer in bit_layers(Model(transform), X)
  }
  expected = {"up": "int8", "down": "trilm", "head": "float"}
  assert found == {path: RECIPES[name] for path, name in expected.items()}


def test_layer_that_no_rule_matches_is_named():
  class Other(nn.Module):
    @nn.compact
    def __call__(self, x):
      return BitDense(2, recipe=RULES, name="other")(x)

  with pytest.raises(ValueError, match=r"no recipe rule matches .*'other'"):
    Other().init(jax.random.key(0), X)


def test_layers_are_layers_of_flax():
  assert isinstance(BitDense(2), nn.Dense)
  assert isinstance(BitDenseGeneral(2), nn.DenseGeneral)
  assert isinstance(BitConv(2, (3,)), nn.Conv)
