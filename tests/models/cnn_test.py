"""The convolutional network: parameters, pooling, norms, sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.models.cnn import Cnn, CnnConfig, max_pool_by_two
from tests.models.conftest import EVERY_RECIPE

SIZES = {
  "channels": (4, 8),
  "convs_per_block": 1,
  "dense_width": 16,
  "batch_norm": False,
  "dropout": 0.0,
  "num_classes": 4,
  "dtype": "float32",
  "param_dtype": "float32",
}


def make_config(**changes):
  return CnnConfig(**(SIZES | changes))


def make_batch(size=4):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(8, size, size, 2)), jnp.float32)
  return x, jnp.arange(8) % 4


@pytest.mark.parametrize(
  ("name", "changes"),
  [
    ("cnn", {}),
    ("cnn_batch_norm", {"batch_norm": True, "convs_per_block": 2}),
  ],
)
def test_parameters_are_those_of_the_golden_file(check_golden, name, changes):
  model = Cnn(make_config(**changes), "b158")
  check_golden(name, model, jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("recipe", EVERY_RECIPE)
def test_overfits_one_batch(overfit, recipe):
  x, labels = make_batch()
  model = Cnn(make_config(channels=(8,), dense_width=32), recipe)
  losses = overfit(model, x, labels)
  assert losses[0] > 0.9  # Chance is ln 4 = 1.39.
  assert losses[-1] < 0.3


@pytest.mark.parametrize(
  "shape",
  [
    (1, 5, 7, 2),
    pytest.param((2, 4, 6, 3), marks=pytest.mark.slow),
    pytest.param((2, 2, 3, 1), marks=pytest.mark.slow),
  ],
)
def test_pooling_equals_that_of_flax_with_its_gradient(shape):
  # Distinct values: where they tie, the gradients may differ.
  values = np.random.default_rng(0).permutation(np.prod(shape))
  x = jnp.asarray(values.reshape(shape), jnp.float32)

  def pool_flax(x):
    return nn.max_pool(x, (2, 2), (2, 2))

  np.testing.assert_array_equal(max_pool_by_two(x), pool_flax(x))
  weights = jnp.arange(max_pool_by_two(x).size, dtype=jnp.float32)
  actual, expected = (
    jax.grad(lambda x, pool=pool: pool(x).ravel() @ weights)(x)
    for pool in (max_pool_by_two, pool_flax)
  )
  np.testing.assert_array_equal(actual, expected)


@pytest.mark.slow
def test_dropout_is_active_only_when_training():
  x, _ = make_batch()
  model = Cnn(make_config(dropout=0.5), "b158")
  variables = model.init(jax.random.key(0), x)

  def apply(seed, deterministic):
    rngs = {"dropout": jax.random.key(seed)}
    return model.apply(variables, x, deterministic=deterministic, rngs=rngs)

  np.testing.assert_array_equal(
    apply(0, deterministic=True), apply(1, deterministic=True)
  )
  assert np.any(apply(0, deterministic=False) != apply(1, deterministic=False))


@pytest.mark.slow
def test_batch_norm_uses_the_batch_only_when_training():
  x, _ = make_batch()
  model = Cnn(make_config(batch_norm=True), "b158")
  variables = model.init(jax.random.key(0), x)
  alone, together = (model.apply(variables, rows)[0] for rows in (x[:1], x))
  # The same sums in one order or another.
  np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)
  (alone, _), (together, changed) = (
    model.apply(variables, rows, deterministic=False, mutable=["batch_stats"])
    for rows in (x[:1], x)
  )
  assert np.abs(alone[0] - together[0]).max() > 1e-2
  mean = changed["batch_stats"]["norm_0_0"]["mean"]
  assert np.abs(mean).max() > 0


@pytest.mark.slow
def test_each_layer_takes_the_recipe_of_its_rule():
  x, _ = make_batch()
  names = ("conv_0_0", "conv_1_0", "dense", "head")
  variables = Cnn(make_config(), "float").init(jax.random.key(0), x)
  plain = Cnn(make_config(), "float").apply(variables, x)
  outputs = [
    Cnn(make_config(), ((name, "b158"), (".*", "float"))).apply(variables, x)
    for name in names
  ]
  for i, output in enumerate(outputs):
    assert np.any(output != plain), names[i]
    assert all(np.any(output != other) for other in outputs[:i])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_are_those_of_the_config(dtype):
  x, _ = make_batch()
  config = make_config(dtype=dtype, param_dtype=dtype, batch_norm=True)
  y, variables = jax.eval_shape(
    lambda: Cnn(config, "b158").init_with_output(jax.random.key(0), x)
  )
  assert y.dtype == jnp.dtype(dtype)
  for layer in ("conv_0_0", "conv_1_0", "dense", "head"):
    kernel = nn.unbox(variables)["params"][layer]["kernel"]
    assert kernel.dtype == jnp.dtype(dtype)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"channels": ()}, "model.channels is 0; it must be at least 1"),
    ({"channels": (4, 0)}, "model.channels is 0"),
    ({"convs_per_block": 0}, "model.convs_per_block is 0"),
    ({"dense_width": 0}, "model.dense_width is 0"),
    ({"dropout": 1.5}, r"model.dropout is 1.5; it must lie in \[0, 1\)"),
    ({"dtype": "x"}, "model.dtype is 'x', .* 'float32'"),
    ({"param_dtype": "x"}, "model.param_dtype is 'x', .* 'float32'"),
  ],
)
def test_size_out_of_range_is_named(changes, message):
  with pytest.raises(ValueError, match=message):
    make_config(**changes)


def test_image_that_is_too_small_is_named():
  x = jnp.zeros((1, 6, 3, 1))
  message = "model.channels asks for 2 blocks, .* but the images are 6x3"
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(Cnn(make_config(), "b158").init, jax.random.key(0), x)
  x = jnp.zeros((1, 4, 5, 1))
  jax.eval_shape(Cnn(make_config(), "b158").init, jax.random.key(0), x)
