"""The multi-layer perceptron: parameters, dropout, dtypes, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.models.mlp import Mlp, MlpConfig
from tests.models.conftest import EVERY_RECIPE

SIZES = {
  "width": 16,
  "depth": 2,
  "dropout": 0.0,
  "num_classes": 4,
  "dtype": "float32",
  "param_dtype": "float32",
}


def make_config(**changes):
  return MlpConfig(**(SIZES | changes))


def make_batch():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(8, 2, 3)), jnp.float32)
  return x, jnp.arange(8) % 4


def test_parameters_are_those_of_the_golden_file(check_golden):
  check_golden("mlp", Mlp(make_config(), "b158"), jnp.zeros((1, 2, 3)))


@pytest.mark.parametrize("recipe", EVERY_RECIPE)
def test_overfits_one_batch(overfit, recipe):
  x, labels = make_batch()
  losses = overfit(Mlp(make_config(width=32, depth=1), recipe), x, labels)
  assert losses[0] > 0.9  # Chance is ln 4 = 1.39.
  assert losses[-1] < 0.3


def test_examples_are_flattened():
  x, _ = make_batch()
  model = Mlp(make_config(), "b158")
  y, variables = model.init_with_output(jax.random.key(0), x)
  assert y.shape == (8, 4)
  np.testing.assert_array_equal(model.apply(variables, x.reshape(8, 6)), y)


def test_dropout_is_active_only_when_training():
  x, _ = make_batch()
  model = Mlp(make_config(dropout=0.5), "b158")
  variables = model.init(jax.random.key(0), x)
  evaluated = [
    model.apply(variables, x, rngs={"dropout": jax.random.key(seed)})
    for seed in (0, 1)
  ]
  trained = [
    model.apply(
      variables, x, deterministic=False, rngs={"dropout": jax.random.key(seed)}
    )
    for seed in (0, 1)
  ]
  np.testing.assert_array_equal(*evaluated)
  assert np.any(trained[0] != trained[1])
  assert np.any(trained[0] != evaluated[0])


def test_rules_choose_the_recipe_of_a_layer():
  x, _ = make_batch()
  ternary, mixed, floating = (
    Mlp(make_config(), recipe)
    for recipe in ("b158", (("head", "float"), (".*", "b158")), "float")
  )
  variables = ternary.init(jax.random.key(0), x)
  outputs = [m.apply(variables, x) for m in (ternary, mixed, floating)]
  assert np.any(outputs[0] != outputs[1])
  assert np.any(outputs[1] != outputs[2])


def test_strength_goes_from_float_to_quantized():
  x, _ = make_batch()
  quantized = Mlp(make_config(), "trilm")
  floating = Mlp(make_config(), "float")
  variables = quantized.init(jax.random.key(0), x)

  def at(strength):
    return quantized.apply(variables, x, strength=strength)

  # The same sums in one order or another.
  reordered = {"rtol": 1e-5, "atol": 1e-5}
  np.testing.assert_allclose(at(0.0), floating.apply(variables, x), **reordered)
  np.testing.assert_allclose(at(1.0), at(None), **reordered)
  assert np.abs(at(0.5) - at(None)).max() > 1e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_dtypes_are_those_of_the_config(dtype, param_dtype):
  model = Mlp(make_config(dtype=dtype, param_dtype=param_dtype), "b158")
  x, _ = make_batch()
  y, variables = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), x)
  )
  assert y.dtype == jnp.dtype(dtype)
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(variables)}
  assert dtypes == {jnp.dtype(param_dtype)}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"width": 0}, "model.width is 0; it must be at least 1"),
    ({"depth": 0}, "model.depth is 0; it must be at least 1"),
    ({"dropout": 1.0}, r"model.dropout is 1.0; it must lie in \[0, 1\)"),
    ({"dropout": -0.1}, "model.dropout is -0.1"),
    ({"dtype": "int8"}, "model.dtype is 'int8', .* 'float32', 'bfloat16'"),
    ({"param_dtype": "x"}, "model.param_dtype is 'x', .* 'float32'"),
  ],
)
def test_size_out_of_range_is_named(changes, message):
  with pytest.raises(ValueError, match=message):
    make_config(**changes)
