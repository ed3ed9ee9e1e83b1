"""The kernels that normalize and round rows, and the gradient of the norm."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, BitConv, BitDense, Quantizer
from bitnet_jax.layers.attention import Attention
from bitnet_jax.layers.feed_forward import FeedForward
from bitnet_jax.ops import lowering, normalize, quantize_input
from bitnet_jax.ops.norm import NORM_EPS, quantize_rows, quantizes_rows
from tests.jaxprs import kernel_calls

pytestmark = pytest.mark.usefixtures("compiled", "one_device")

NORMS = (None, "layer_norm", "rms_norm")
ACTS = RECIPES["b158"].acts
# A few float32 roundings.
TOLERANCE = dict(rtol=2e-6, atol=2e-6)


def rows(*shape):
  rng = np.random.default_rng(0)
  return (3 * rng.normal(size=shape) + 1).astype(np.float32)


def reference(x, norm):
  x = x.astype(np.float64)
  if norm == "layer_norm":
    x = x - x.mean(-1, keepdims=True)
  if norm is not None:
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + NORM_EPS)
  return x


def quantize(x, norm, acts=ACTS, axes=(-1,)):
  return jax.jit(lambda x: quantize_rows(x, norm, acts, axes=axes))(x)


@pytest.mark.parametrize("n", [1, 7, 16, 64, 100, 1030])
@pytest.mark.parametrize("range_", [(-128, 127), (-127, 127), (-8, 7)])
@pytest.mark.parametrize("norm", NORMS)
def test_codes_are_those_of_the_formula(norm, range_, n):
  acts = Quantizer("absmax", range_, axis=-1)
  x = rows(5, 3, n)
  q = quantize(x, norm, acts)
  expected = reference(x, norm)
  largest = np.maximum(np.abs(expected).max(-1, keepdims=True), acts.eps)
  np.testing.assert_allclose(q.scale, largest / acts.largest_code, **TOLERANCE)
  np.testing.assert_allclose(q.latent, expected, **TOLERANCE)
  real = expected / (largest / acts.largest_code)
  clipped = np.clip(real, *range_)
  # Rounded to the nearest, but for what is as near to two as roundings tell.
  assert np.abs(q.codes - clipped).max() <= 0.5 + 1e-4
  certain = np.abs(np.abs(real % 1) - 0.5) > 1e-4
  np.testing.assert_array_equal(
    q.codes[certain], np.clip(np.round(real), *range_)[certain]
  )


@pytest.mark.parametrize("norm", NORMS)
def test_batches_may_be_empty(norm):
  q = quantize(np.zeros((0, 3, 16), np.float32), norm)
  assert q.codes.shape == (0, 3, 16)
  assert q.scale.shape == (0, 3, 1)


def test_ties_go_to_the_even_code():
  x = np.float32([[0.5, 1.5, 2.5, -0.5, -1.5, 127]])
  q = quantize(x, None, RECIPES["bitnet_2b4t"].acts)
  np.testing.assert_array_equal(q.codes, [[0, 2, 2, 0, -2, 127]])


@pytest.mark.parametrize("norm", NORMS)
def test_rows_depend_on_no_other_row(norm):
  x = rows(40, 70)
  together = quantize(x, norm)
  alone = quantize(x[7:8], norm)
  np.testing.assert_array_equal(alone.codes[0], together.codes[7])
  np.testing.assert_array_equal(alone.scale[0], together.scale[7])
  x[2, 5], x[3, 69], x[4, 0], x[5] = np.nan, np.inf, -np.inf, 0
  x[8] = 1e20 * x[8]
  found = quantize(x, norm)
  assert np.isnan(found.scale[2:5]).all()
  np.testing.assert_array_equal(found.codes[2:6], 0)
  np.testing.assert_allclose(found.scale[5], ACTS.eps / ACTS.largest_code)
  # Its squares overflow.
  assert np.isnan(found.scale[8]) == (norm is not None)
  rest = [6, 7, *range(9, 40)]
  np.testing.assert_array_equal(found.codes[rest, :], together.codes[rest, :])


def test_scale_without_a_normal_reciprocal_is_nan():
  acts = Quantizer("absmax", (-1, 1), axis=-1)
  x = np.float32([[8e37, 8e37], [9e37, 9e37]])
  scale = quantize(x, None, acts).scale
  np.testing.assert_array_equal(scale, np.float32([[8e37], [np.nan]]))


@pytest.mark.parametrize("n", [1, 16, 70, 1030])
@pytest.mark.parametrize("norm", NORMS[1:])
def test_gradient_is_that_without(norm, n):
  x, g = rows(2, 9, n)

  def gradient(x, g):
    return jax.vjp(lambda x: normalize(x, norm), x)[1](g)[0]

  assert kernel_calls(gradient, x, g, of="norm_gradients") == 1
  found = jax.jit(gradient)(x, g)
  with lowering.portable():
    assert kernel_calls(gradient, x, g) == 0
    expected = jax.jit(lambda *args: gradient(*args))(x, g)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


CLIPPED = dataclasses.replace(
  RECIPES["b158"],
  ste="clipped",
  acts=dataclasses.replace(ACTS, range=(-8, 7)),
)


@pytest.mark.slow
@pytest.mark.parametrize(
  "recipe", ["b158", "b158_median", "bitnet_2b4t", CLIPPED]
)
@pytest.mark.parametrize("kind", ["dense", "conv", "conv, circular"])
def test_layers_round_their_input_in_one_kernel(kind, recipe):
  # No mean, and shares of the largest that are not near to ties, so that both
  # programs find the same codes.
  eighths = [-7, -6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6, 7]
  half = 8 * np.random.default_rng(0).choice(eighths, (4, 16, 35))
  half[..., 0] = 64
  x = jnp.asarray(np.concatenate([half, -half], -1), jnp.float32)
  layer = BitDense(32, recipe=recipe)
  if kind != "dense":
    padding = "CIRCULAR" if "circular" in kind else "SAME"
    layer = BitConv(32, (3,), padding=padding, recipe=recipe)
  params = layer.init(jax.random.key(0), x)
  head = jnp.asarray(rows(4, 16, 32))

  def results(params, x):
    y, vjp = jax.vjp(layer.apply, params, x)
    return y, *vjp(head)

  assert kernel_calls(results, params, x, of="quantize_rows") == 1
  found = jax.jit(results)(params, x)
  with lowering.portable():
    assert kernel_calls(results, params, x) == 0
    expected = jax.jit(lambda *args: results(*args))(params, x)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=0, atol=1e-5 * np.abs(b).max()
    ),
    found,
    expected,
  )


@pytest.mark.parametrize(
  "part",
  [
    Attention(num_heads=2, num_kv_heads=2, head_dim=16),
    FeedForward(48, kind="swiglu"),
  ],
  ids=["query, key, value", "gate, up"],
)
def test_what_is_shared_is_rounded_once(part):
  x = jnp.asarray(rows(2, 40, 32))
  params = part.init(jax.random.key(0), x)
  apply = lambda x: part.apply(params, x)  # noqa: E731
  # What is shared, and the input of the last layer.
  assert kernel_calls(apply, x, of="quantize_rows") == 2


def test_strength_keeps_inputs_in_float():
  layer, x = BitDense(32), jnp.asarray(rows(8, 16, 70))
  params = layer.init(jax.random.key(0), x)
  phased = lambda x: layer.apply(params, x, strength=0.5)  # noqa: E731
  assert kernel_calls(phased, x, of="quantize_rows") == 0


def test_gradients_are_differentiated_and_batched_as_without():
  x = jnp.asarray(rows(3, 64, 70))

  def gradient(x):
    return jax.grad(
      lambda x: jnp.sum(jnp.sin(quantize_input(x, "b158").latent))
    )(x)

  assert kernel_calls(jax.vmap(gradient), x, of="norm_gradients") == 1
  each = jax.vmap(jax.value_and_grad(lambda x: jnp.sum(gradient(x) ** 2)))
  found = jax.jit(each)(x)
  with lowering.portable():
    expected = jax.jit(lambda x: each(x))(x)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_batches_share_one_call():
  x = jnp.asarray(rows(3, 64, 70))
  each = jax.vmap(lambda x: quantize_rows(x, "rms_norm", ACTS, axes=(-1,)))
  together = quantize(x, "rms_norm")
  np.testing.assert_array_equal(jax.jit(each)(x).codes, together.codes)
  assert "scan" not in str(jax.make_jaxpr(each)(x))


def test_what_the_kernel_does_not_do_is_left_to_xla():
  x = jnp.zeros((64, 8, 16))
  suits = lambda acts, x=x, axes=(-1,): quantizes_rows(  # noqa: E731
    x, None, acts, axes=axes
  )
  assert suits(ACTS)
  assert suits(ACTS, axes=(1, 2))
  assert not suits(ACTS, axes=(0, 2))
  assert not suits(ACTS, x.astype(jnp.bfloat16))
  for other in (
    {"axis": None},
    {"rounding": "stochastic"},
    {"measure": "absmean"},
  ):
    assert not suits(dataclasses.replace(ACTS, **other))
