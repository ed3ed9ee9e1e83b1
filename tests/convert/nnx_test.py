"""An NNX model that knows nothing of us, made ternary."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bitnet_jax import Quantizer, Recipe
from bitnet_jax.convert import bitlinearize
from tests.convert.linen_test import int8_products, loss_of
from tests.convert.nnx_models import Transformer

ROWS = jnp.zeros((2, 8, 8))
HIDDEN = [("out", "float"), (".*", "b158")]


def call(model):
  graph, state = nnx.split(model)
  return lambda x: nnx.merge(graph, state)(x)


def test_parameters_stay_and_the_model_too():
  model = Transformer(nnx.Rngs(0))
  ternary, _ = bitlinearize(model, HIDDEN)
  expected, found = (nnx.state(m, nnx.Param) for m in (model, ternary))
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert type(model.embed) is nnx.Linear
  assert int8_products(call(model), ROWS) == 0
  assert int8_products(call(ternary), ROWS) == 1 + 2 * (4 + 2)


def test_shared_layer_stays_one():
  ternary, report = bitlinearize(Transformer(nnx.Rngs(0)), HIDDEN)
  assert ternary.blocks[0].up is ternary.blocks[1].up
  ups = [path for path in report.layers if path.endswith("/up")]
  assert len(ups) == 1


def test_report_lists_every_layer():
  rules = [("blocks/0/attention/.*", "b158"), ("embed", "int8")]
  _, report = bitlinearize(Transformer(nnx.Rngs(0)), rules)
  assert report.converted == [
    *(f"blocks/0/attention/{n}" for n in ("key", "out", "query", "value")),
    "embed",
  ]
  assert report.layers["out"].reason == "no rule matches"


class Scaled(nnx.Linear):
  """A layer with code of its own."""

  def __call__(self, inputs, out_sharding=None):
    return 2 * super().__call__(inputs, out_sharding)


class Odd(nnx.Module):
  """Layers that have no twin."""

  def __init__(self, rngs):
    self.embed = nnx.Embed(4, 4, rngs=rngs)
    self.own = nnx.Linear(4, 4, dot_general=jnp.dot, rngs=rngs)
    self.transposed = nnx.ConvTranspose(4, 4, (3,), rngs=rngs)
    self.plain = nnx.Linear(4, 4, rngs=rngs)
    self.scaled = Scaled(4, 4, rngs=rngs)
    self.lora = nnx.LoRALinear(4, 4, lora_rank=2, rngs=rngs)
    self.bridged = nnx.bridge.ToNNX(nn.Dense(4), rngs=rngs)


def test_layers_without_a_twin_stay_and_say_why():
  _, report = bitlinearize(Odd(nnx.Rngs(0)), "b158")
  assert report.converted == ["plain"]
  assert report.layers["own"].reason.startswith("it has dot_general")
  assert report.layers["embed"].reason.startswith("Embed has no twin; Linear")
  for name, kind in (("scaled", "Scaled"), ("lora", "LoRALinear")):
    assert report.layers[name].reason.startswith(f"{kind} has code of its own")
  assert report.layers["bridged"].reason.startswith("it is a module of Linen")


def test_quantized_layers_keep_their_recipes():
  rules = [("embed|out", "float")]
  first, _ = bitlinearize(Transformer(nnx.Rngs(0)), rules)
  second, report = bitlinearize(first, "b158")
  assert "embed" not in report.layers
  assert second.embed.recipe.is_float


def test_mistakes_are_named():
  model = Transformer(nnx.Rngs(0))
  with pytest.raises(ValueError, match=r"'head' applies to no layer; .*embed"):
    bitlinearize(model, [("head", "b158")])
  with pytest.raises(TypeError, match="needs no example"):
    bitlinearize(model, "b158", ROWS)
  rounding = Recipe(Quantizer("absmean", (-1, 1), rounding="stochastic"))
  with pytest.raises(ValueError, match="needs rngs; none were given"):
    bitlinearize(model, rounding)


def test_random_rounding_draws_from_the_keys_given():
  weights = Quantizer("absmean", (-1, 1), rounding="stochastic")
  rules = [("embed", Recipe(weights))]
  keys = nnx.Rngs(3)
  ternary, _ = bitlinearize(Transformer(nnx.Rngs(0)), rules, rngs=keys)
  x = jnp.arange(16.0).reshape(2, 8)
  assert not np.array_equal(ternary.embed(x), ternary.embed(x))


def train(model, x, labels, *, steps):
  """Returns the mean loss of the last steps."""
  tx = optax.adam(optax.cosine_decay_schedule(5e-3, steps))
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

  @nnx.jit
  def step(model, optimizer):
    def loss(model):
      return loss_of(model(x), labels)

    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value

  losses = [float(step(model, optimizer)) for _ in range(steps)]
  return np.mean(losses[-10:])


@pytest.mark.slow
def test_converted_model_learns_as_the_float_one():
  from sklearn.datasets import load_digits

  images, labels = load_digits(return_X_y=True)
  x = jnp.asarray(images[:256].reshape(-1, 8, 8) / 16, jnp.float32)
  labels = jnp.asarray(labels[:256])
  model = Transformer(nnx.Rngs(0))
  ternary, _ = bitlinearize(model, HIDDEN)
  expected = train(model, x, labels, steps=400)
  found = train(ternary, x, labels, steps=400)
  assert found < np.log(10) / 2
  assert found < 1.1 * expected
