"""Layers under Flax's transforms are converted, whatever ran before."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from bitnet_jax import BitDense, Quantizer, Recipe
from bitnet_jax.convert import bitlinearize
from bitnet_jax.inference import freeze
from bitnet_jax.layers import bit_layers
from bitnet_jax.types import QTensor

X = jax.random.normal(jax.random.key(0), (2, 8))
STOCHASTIC = Recipe(Quantizer("absmean", (-1, 1), rounding="stochastic"))


class Block(nn.Module):
  """A layer, in the form that ``nn.scan`` takes."""

  layer: type[nn.Module] = nn.Dense

  @nn.compact
  def __call__(self, x):
    return self.layer(8, name="layer")(x), None


class Decorated(Block):
  @nn.jit
  @nn.compact
  def __call__(self, x):
    return self.layer(8, name="layer")(x), None


class Method(nn.Module):
  """Transforms of functions of a module."""

  kind: str
  layer: type[nn.Module] = nn.Dense

  @nn.compact
  def __call__(self, x):
    layer = self.layer(8, name="layer")

    def run(layer, x):
      return layer(x)

    if self.kind == "cond":
      return nn.cond(x.sum() > 0, run, run, layer, x), None
    if self.kind == "switch":
      return nn.switch(0, [run, run], layer, x), None
    if self.kind == "remat":
      return nn.remat(run)(layer, x), None
    if self.kind == "jit":
      return nn.jit(run)(layer, x), None
    y, back = nn.vjp(run, layer, x)
    return y + back(y)[1], None


JIT = nn.jit(Block)
AXES = dict(variable_axes={"params": 0}, split_rngs={"params": True})
FORMS = {
  "none": Block,
  "nn.jit": JIT,
  "nn.jit of a method": Decorated,
  "nn.jit of a function": lambda **more: Method("jit", **more),
  "nn.remat": nn.remat(Block),
  "nn.jit, nn.remat": nn.jit(nn.remat(Block)),
  "nn.scan": nn.scan(Block, length=2, **AXES),
  "nn.scan of nn.jit": nn.scan(JIT, length=2, **AXES),
  "nn.vmap of nn.jit": nn.vmap(JIT, in_axes=None, axis_size=2, **AXES),
  "nn.cond": lambda **more: Method("cond", **more),
  "nn.switch": lambda **more: Method("switch", **more),
  "nn.remat of a function": lambda **more: Method("remat", **more),
  "nn.vjp": lambda **more: Method("vjp", **more),
}
SOME = ("nn.jit", "nn.jit of a method")
ALL = [
  pytest.param(n, marks=[] if n in SOME else pytest.mark.slow) for n in FORMS
]


class Net(nn.Module):
  """A list of layers, and a head beside it."""

  blocks: tuple[nn.Module, ...]

  @nn.compact
  def __call__(self, x):
    for block in self.blocks:
      x = block(x)[0]
    return nn.Dense(3, name="head")(x)


@pytest.mark.parametrize("form", ALL)
def test_model_is_converted_after_a_first_call(form):
  model = Net((FORMS[form](), FORMS[form]()))
  variables = model.init(jax.random.key(1), X)
  plain = model.apply(variables, X)
  outputs = []
  for recipe in ("b158", "int4"):
    rules = [("head", "float"), (".*", recipe)]
    ternary, report = bitlinearize(model, rules, X)
    assert report.converted == ["blocks_0/layer", "blocks_1/layer", "head"]
    outputs.append(ternary.apply(variables, X))
    np.testing.assert_array_equal(outputs[-1], ternary.apply(variables, X))
  assert not np.allclose(outputs[0], plain, atol=1e-3)
  assert not np.allclose(outputs[0], outputs[1], atol=1e-3)
  np.testing.assert_array_equal(model.apply(variables, X), plain)


@pytest.mark.parametrize("form", ("nn.jit", "nn.jit of a method"))
def test_rules_tell_alike_layers_apart_and_traces_are_reused(form):
  traced = []

  def dense(features, name):
    traced.append(name)
    return nn.Dense(features, name=name)

  rules = [("blocks_0/.*", "b158"), ("blocks_1/.*", "int4"), (".*", "float")]
  outputs, variables = [], None
  for blocks in (FORMS["none"], FORMS[form]):
    model = Net((blocks(layer=dense), blocks(layer=dense)))
    variables = variables or model.init(jax.random.key(1), X)
    ternary, _ = bitlinearize(model, rules, X)
    outputs.append(ternary.apply(variables, X))
    traced.clear()
    ternary.apply(variables, X)
  np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)
  assert traced == []


@pytest.mark.parametrize("form", ALL)
def test_layers_are_listed_and_frozen_after_a_first_call(form):
  def layer(features, name):
    return BitDense(features, name=name)

  model = FORMS[form](layer=layer)
  variables = model.init(jax.random.key(1), X)
  expected, _ = jax.jit(model.apply)(variables, X)
  for _ in range(2):
    assert [found.path for found in bit_layers(model, X)] == ["layer"]
  frozen = freeze(variables, model, X)
  assert isinstance(frozen["params"]["layer"]["kernel"], QTensor)
  found, _ = jax.jit(model.apply)(frozen, X)
  if form != "nn.vjp":  # Codes have no gradient.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_random_rounding_under_nn_jit_draws_anew():
  model = Net((JIT(), JIT()))
  variables = model.init(jax.random.key(1), X)
  ternary, _ = bitlinearize(model, STOCHASTIC, X)

  def apply(seed):
    rngs = {"quantize": jax.random.key(seed)}
    return np.asarray(ternary.apply(variables, X, rngs=rngs))

  np.testing.assert_array_equal(apply(0), apply(0))
  assert np.any(apply(0) != apply(1))
