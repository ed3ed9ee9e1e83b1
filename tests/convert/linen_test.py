"""Linen models that know nothing of us, made ternary."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitnet_jax import RECIPES, BitDense
from bitnet_jax.convert import bitlinearize
from bitnet_jax.inference import freeze
from bitnet_jax.types import Packed
from tests.convert.linen_models import Cnn, Transformer
from tests.jaxprs import equations

IMAGES = jnp.zeros((2, 8, 8, 1))
ROWS = jnp.zeros((2, 8, 8))
HIDDEN = [(r"out", "float"), (r".*", "b158")]
# On CPUs a convolution of one channel is in float by itself.
INTEGERS = [
  (r"out", "float"),
  (r".*", dataclasses.replace(RECIPES["b158"], compute="int8")),
]
MODELS = {"cnn": (Cnn(), IMAGES), "transformer": (Transformer(), ROWS)}


def int8_products(function, *args):
  jaxpr = jax.make_jaxpr(function)(*args).jaxpr
  return sum(
    all(v.aval.dtype == jnp.int8 for v in e.invars[:2])
    for name in ("dot_general", "conv_general_dilated")
    for e in equations(jaxpr, name)
  )


@pytest.mark.parametrize("name", MODELS)
def test_parameters_keep_their_tree_and_their_values(name):
  model, x = MODELS[name]
  ternary, _ = bitlinearize(model, HIDDEN, x)
  expected = jax.jit(model.init)(jax.random.key(0), x)
  found = jax.jit(ternary.init)(jax.random.key(0), x)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_float_twins_compute_what_the_model_does():
  for model, x in MODELS.values():
    same, _ = bitlinearize(model, "float")
    variables = jax.jit(model.init)(jax.random.key(0), x)
    x = jax.random.normal(jax.random.key(1), x.shape)
    np.testing.assert_array_equal(
      jax.jit(same.apply)(variables, x), jax.jit(model.apply)(variables, x)
    )


def test_report_lists_every_layer():
  _, report = bitlinearize(
    Cnn(), [("Dense_0", "b158"), ("C.*", "b158")], IMAGES
  )
  assert report.converted == ["Conv_0", "Conv_1", "Dense_0"]
  assert report.layers["out"].recipe is None
  assert report.layers["out"].reason == "no rule matches"
  assert report.layers["Conv_1"].reason == "rule 'C.*'"
  assert len(str(report).splitlines()) == 4
  assert "out      Dense          as it was: no rule matches" in str(report)


@pytest.mark.parametrize(
  ("name", "count"), [("cnn", 3), ("transformer", 2 * (4 + 2) + 1)]
)
def test_converted_layers_multiply_integers(name, count):
  model, x = MODELS[name]
  ternary, report = bitlinearize(model, INTEGERS, x)
  assert len(report.converted) == count + 1  # With "out", under "float".
  variables = jax.jit(ternary.init)(jax.random.key(0), x)
  assert int8_products(ternary.apply, variables, x) == count
  assert int8_products(model.apply, variables, x) == 0


def test_other_methods_run_the_twins_too():
  ternary, _ = bitlinearize(Transformer(), HIDDEN, ROWS)
  variables = jax.jit(ternary.init)(jax.random.key(0), ROWS)

  def encode(variables, x):
    return ternary.apply(variables, x, method="encode")

  assert int8_products(encode, variables, ROWS) == 13
  assert ternary.blocks == 2


def test_model_inside_another_model_is_converted():
  class Outer(nn.Module):
    body: nn.Module

    @nn.compact
    def __call__(self, x):
      return nn.Dense(3, name="last")(self.body(x))

  inner, report = bitlinearize(Cnn(), INTEGERS)
  outer = Outer(inner)
  variables = jax.jit(outer.init)(jax.random.key(0), IMAGES)
  assert set(variables["params"]) == {"body", "last"}
  assert "Conv_0" in variables["params"]["body"]
  assert report.converted == ["Conv_0", "Conv_1", "Dense_0", "out"]
  assert int8_products(outer.apply, variables, IMAGES) == 3


def test_converted_model_is_frozen():
  ternary, _ = bitlinearize(Cnn(), HIDDEN, IMAGES)
  variables = jax.jit(ternary.init)(jax.random.key(0), IMAGES)
  frozen = freeze(variables, ternary, IMAGES)
  kernels = {
    n: v["kernel"] for n, v in frozen["params"].items() if "n" in n[1:]
  }
  assert isinstance(kernels["Conv_1"].qvalue, Packed)
  x = jax.random.normal(jax.random.key(1), IMAGES.shape)
  apply = jax.jit(ternary.apply)
  np.testing.assert_allclose(
    apply(frozen, x), apply(variables, x), rtol=1e-6, atol=1e-6
  )


class Odd(nn.Module):
  """Layers that have no twin."""

  @nn.compact
  def __call__(self, x):
    x = nn.Embed(5, 4, name="embed")(x)
    x = nn.Dense(4, name="own", dot_general=jax.lax.dot_general)(x)
    x = nn.Conv(4, (3,), name="masked", mask=jnp.ones((3, 4, 4)))(x)
    x = nn.ConvTranspose(4, (3,), name="transposed")(x)
    return nn.Dense(4, name="plain")(x)


def test_layers_without_a_twin_stay_and_say_why():
  ids = jnp.zeros((2, 6), int)
  ternary, report = bitlinearize(Odd(), "b158", ids)
  assert report.converted == ["masked", "plain"]
  reasons = {path: layer.reason for path, layer in report.layers.items()}
  assert reasons["embed"].startswith("Embed has no twin; Dense, DenseGeneral")
  assert reasons["own"] == "it has dot_general, which its twin does not take"
  assert reasons["transposed"].startswith("ConvTranspose has no twin")
  variables = jax.jit(ternary.init)(jax.random.key(0), ids)
  assert jax.jit(ternary.apply)(variables, ids).shape == (2, 6, 4)


def test_layers_of_this_package_are_left_alone():
  class Mixed(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(3)(BitDense(4, recipe="int8", name="bit")(x))

  _, report = bitlinearize(Mixed(), "b158", ROWS)
  assert list(report.layers) == ["Dense_0"]


@pytest.mark.parametrize(
  ("rules", "message"),
  [
    ("b185", r"recipe is 'b185'.*did you mean"),
    ([("(", "b158")], r"rule '\(' is no regular expression"),
    ([("head", "b158")], r"'head' applies to no layer; .*Conv_0, Conv_1, Den"),
    ([(".*", "b158"), ("out", "float")], "'out' applies to no layer"),
  ],
)
def test_bad_rule_is_named(rules, message):
  with pytest.raises(ValueError, match=message):
    bitlinearize(Cnn(), rules, IMAGES)


def test_bad_rule_without_example_is_named_at_init():
  ternary, report = bitlinearize(Cnn(), [("head", "b158")])
  assert report.layers == {}
  with pytest.raises(ValueError, match="'head' applies to no layer"):
    ternary.init(jax.random.key(0), IMAGES)


@pytest.mark.parametrize(
  "rules",
  [None, 3, (".*", "b158"), [(".*",)], [(3, "b158")], ["b158"]],
)
def test_what_are_no_rules_is_refused(rules):
  with pytest.raises(ValueError, match=r"rules are .*such as \[\('out', 'flo"):
    bitlinearize(Cnn(), rules, IMAGES)


def test_rules_may_be_a_mapping():
  _, report = bitlinearize(Cnn(), dict(HIDDEN), IMAGES)
  assert report.layers == bitlinearize(Cnn(), HIDDEN, IMAGES)[1].layers
  assert "out      Dense          float: rule 'out'" in str(report)


class Parts(nn.Module):
  """A model whose layers are given to it, one of them by a telling name."""

  model: nn.Module
  blocks: tuple[nn.Module, ...]
  head: nn.Module

  def __call__(self, x):
    for block in (self.model, *self.blocks):
      x = block(x)
    return self.head(x)


def test_layers_that_are_attributes_have_the_paths_of_the_model():
  shared = nn.Dense(8)
  model = Parts(nn.Dense(8), (shared, nn.Dense(8), shared), nn.Dense(3))
  rules = [("head", "float"), ("model|blocks_.", "b158")]
  ternary, report = bitlinearize(model, rules, ROWS)
  assert list(report.layers) == ["model", "blocks_0", "blocks_1", "head"]
  assert report.layers["head"].recipe.is_float
  expected = jax.jit(model.init)(jax.random.key(0), ROWS)
  found = jax.jit(ternary.init)(jax.random.key(0), ROWS)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_model_is_converted_once():
  ternary, _ = bitlinearize(Cnn(), HIDDEN, IMAGES)
  with pytest.raises(ValueError, match=r"what bitlinearize returned.*in one c"):
    bitlinearize(ternary, "int8", IMAGES)


def test_converted_part_of_a_model_keeps_its_recipes():
  inner, of_inner = bitlinearize(Cnn(), HIDDEN)
  model = nn.Sequential([inner, nn.Dense(3)])
  _, report = bitlinearize(model, "int8", IMAGES)
  assert list(report.layers) == ["layers_1"]
  assert of_inner.layers["out"].recipe.is_float


@pytest.mark.slow
def test_converted_model_is_called_twice_by_another():
  class Twice(nn.Module):
    body: nn.Module

    @nn.compact
    def __call__(self, x):
      return self.body(x) + self.body(x)

  inner, _ = bitlinearize(Cnn(), HIDDEN)
  variables = jax.jit(Twice(inner).init)(jax.random.key(0), IMAGES)
  x = jax.random.normal(jax.random.key(1), IMAGES.shape)
  once = inner.apply({n: v["body"] for n, v in variables.items()}, x)
  np.testing.assert_allclose(
    Twice(inner).apply(variables, x), 2 * once, rtol=1e-6
  )


def test_what_is_no_model_is_refused():
  with pytest.raises(TypeError, match="model is a dict, neither a Linen nor"):
    bitlinearize({}, "b158")


def loss_of(logits, labels):
  """Cross-entropy of smoothed labels: its floor is not zero."""
  smooth = optax.smooth_labels(jax.nn.one_hot(labels, 10), 0.1)
  return optax.softmax_cross_entropy(logits, smooth).mean()


def train(model, variables, x, labels, *, steps):
  """Returns the mean loss of the last steps."""
  tx = optax.adam(optax.cosine_decay_schedule(5e-3, steps))
  params = variables["params"]
  rest = {n: v for n, v in variables.items() if n != "params"}

  @jax.jit
  def step(params, opt_state, rest):
    def loss(params):
      more = {"train": True} if rest else {}
      logits, changed = model.apply(
        {"params": params, **rest}, x, mutable=list(rest), **more
      )
      return loss_of(logits, labels), changed

    (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, changed, value

  opt_state, losses = tx.init(params), []
  for _ in range(steps):
    params, opt_state, rest, value = step(params, opt_state, rest)
    losses.append(float(value))
  return np.mean(losses[-10:])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_converted_model_learns_as_the_float_one(name):
  from sklearn.datasets import load_digits

  images, labels = load_digits(return_X_y=True)
  x = jnp.asarray(images[:256].reshape(-1, 8, 8) / 16, jnp.float32)
  x = x[..., None] if name == "cnn" else x
  labels = jnp.asarray(labels[:256])
  model, example = MODELS[name]
  variables = jax.jit(model.init)(jax.random.key(0), example)
  ternary, _ = bitlinearize(model, HIDDEN, example)
  steps = 400
  expected = train(model, variables, x, labels, steps=steps)
  found = train(ternary, variables, x, labels, steps=steps)
  assert found < np.log(10) / 2
  assert found < 1.1 * expected
