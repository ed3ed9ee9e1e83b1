"""A pytest plugin: our layers under "float" in the place of those of Flax."""

import flax.linen as nn
from flax import nnx

from bitnet_jax import BitConv, BitDense, BitDenseGeneral
from bitnet_jax import nnx as bit
from bitnet_jax.quantizers.recipe import RecipeLike


def pytest_configure(config):
  del config
  # Modules name parameters by their class.
  for layer, name in (
    (BitDense, "Dense"),
    (BitDenseGeneral, "DenseGeneral"),
    (BitConv, "Conv"),
  ):
    fields = {"recipe": "float", "__annotations__": {"recipe": RecipeLike}}
    setattr(nn, name, type(name, (layer,), fields))
  for layer, name in (
    (bit.BitLinear, "Linear"),
    (bit.BitLinearGeneral, "LinearGeneral"),
    (bit.BitConv, "Conv"),
  ):
    setattr(nnx, name, _in_float(layer, name))


def _in_float(layer, name):
  def make(self, *args, **kwargs):
    layer.__init__(self, *args, recipe="float", **kwargs)

  return type(name, (layer,), {"__init__": make})
