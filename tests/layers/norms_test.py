"""The norms of models, beside those of Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.layers import norms

# One float32 rounding, where compilers fuse the factor.
TOLERANCE = dict(rtol=1e-6, atol=1e-6)
NORMS = ("RMSNorm", "LayerNorm", "BatchNorm")


def made(module, name, **options):
  if name == "BatchNorm":
    options["use_running_average"] = False
  return getattr(module, name)(**options)


def inputs(dtype):
  return jax.random.normal(jax.random.key(0), (8, 6, 16), dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", NORMS)
def test_norm_is_that_of_flax(name, dtype):
  x, options = inputs(dtype), {"dtype": dtype, "epsilon": 1e-3}
  ours, theirs = (made(m, name, **options) for m in (norms, nn))
  variables = theirs.init(jax.random.key(1), x)

  def run(module, x):
    def loss(params, x):
      found = module.apply(variables | {"params": params}, x, mutable=True)
      return jnp.sum(jnp.sin(found[0].astype(jnp.float32))), found

    gradients = jax.grad(loss, (0, 1), has_aux=True)
    return gradients(variables["params"], x)

  assert jax.tree.all(
    jax.tree.map(jnp.array_equal, ours.init(jax.random.key(1), x), variables)
  )
  found, expected = (run(module, x) for module in (ours, theirs))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      *(v.astype(jnp.float32) for v in (a, b)), **TOLERANCE
    ),
    found,
    expected,
  )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", NORMS)
def test_squares_that_overflow_make_outputs_and_gradients_nan(name, dtype):
  x, norm = inputs(dtype), made(norms, name, dtype=dtype)
  # Centered, so that the square of the mean does not overflow, too.
  place = (..., 1) if name == "BatchNorm" else (slice(None), 1)
  centered = jnp.where(jnp.arange(8)[:, None] % 2 == 0, 5e19, -5e19)
  if name != "BatchNorm":
    centered = jnp.where(jnp.arange(16) % 2 == 0, 5e19, -5e19)
  huge = x.at[place].set(centered.astype(dtype))
  variables = norm.init(jax.random.key(1), x)

  def loss(x):
    y, _ = norm.apply(variables, x, mutable=["batch_stats"])
    return jnp.sum(y.astype(jnp.float32)), y

  gradient, y = jax.grad(loss, has_aux=True)(huge)
  bad = np.zeros(x.shape, bool)
  bad[place] = True
  np.testing.assert_array_equal(np.isnan(y.astype(jnp.float32)), bad)
  np.testing.assert_array_equal(np.isnan(gradient.astype(jnp.float32)), bad)


def test_running_variance_that_overflowed_shows_in_evaluation():
  x = inputs(jnp.float32)
  norm = norms.BatchNorm(use_running_average=True)
  variables = norm.init(jax.random.key(1), x)
  variables["batch_stats"]["var"] = jnp.ones(16).at[3].set(jnp.inf)
  bad = np.isnan(norm.apply(variables, x))
  np.testing.assert_array_equal(bad, np.zeros_like(bad) | (np.arange(16) == 3))
