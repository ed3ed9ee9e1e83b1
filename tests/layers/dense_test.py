"""A layer finds its own recipe, and is a layer of Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, BitConv, BitDense, BitDenseGeneral
from bitnet_jax.layers import bit_layers

RULES = ((".*/up", "int8"), (".*/down", "trilm"), ("head", "float"))
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


class Up(nn.Module):
  """A layer of the rules of a block."""

  rules: tuple

  @nn.compact
  def __call__(self, x):
    return BitDense(4, recipe=self.rules, name="up")(x)


class UpByMethod(Up):
  """Likewise, with ``nn.jit`` on its method."""

  @nn.jit
  @nn.compact
  def __call__(self, x):
    return BitDense(4, recipe=self.rules, name="up")(x)


UPS = {"none": Up, "nn.jit": nn.jit(Up), "nn.jit of a method": UpByMethod}


class Pair(nn.Module):
  """Two equal blocks, of which a rule means one."""

  rules: tuple
  transform: str

  @nn.compact
  def __call__(self, x):
    up = UPS[self.transform]
    return [up(self.rules, name=name)(x) for name in ("a", "b")]


@pytest.mark.parametrize("transform", ("nn.jit", "nn.jit of a method"))
def test_rule_that_a_shared_trace_would_mistake_is_refused(transform):
  x = jax.random.normal(jax.random.key(0), (2, 4))
  plain, jitted = Pair((), "none"), Pair((), transform)
  named = (("a/up", "float"), (".*", "b158"))
  with pytest.raises(ValueError, match=r"'a/up' depend on .* '\.\*up'"):
    jitted.clone(rules=named).init(jax.random.key(1), x)
  anywhere = ((".*up", "float"), (".*", "b158"))
  variables = plain.clone(rules=anywhere).init(jax.random.key(1), x)
  expected = plain.clone(rules=anywhere).apply(variables, x)
  found = jitted.clone(rules=anywhere).apply(variables, x)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, b)
  # Of the whole model there is one.
  whole = nn.jit(Pair)(named, "none").apply(variables, x)
  expected = plain.clone(rules=named).apply(variables, x)
  np.testing.assert_allclose(whole[1], expected[1], rtol=1e-6)


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
