"""Tests of what our layers do that their twins do not."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from bitnet_jax import RECIPES, BitConv, BitDense, BitDenseGeneral
from bitnet_jax.ops import bit_dot, normalize

# Sums of float32 in another order, relative to values of order one.
TOLERANCE = dict(rtol=0, atol=1e-5)
STOCHASTIC = dataclasses.replace(
  RECIPES["b158"],
  weights=dataclasses.replace(RECIPES["b158"].weights, rounding="stochastic"),
)


def run(layer, shape, seed=0):
  x = jax.random.normal(jax.random.key(seed), shape)
  y, variables = jax.jit(layer.init_with_output)(jax.random.key(1), x)
  return x, y, variables["params"]


@pytest.mark.parametrize("recipe", ("b158", "bitlinear", "bitnet_2b4t"))
def test_dense_is_norm_quantize_multiply_add(recipe):
  bias_init = nn.initializers.normal(1.0)
  layer = BitDense(5, recipe=recipe, bias_init=bias_init)
  x, y, params = run(layer, (3, 4, 8))
  expected = bit_dot(
    normalize(x, RECIPES[recipe].norm),
    params["kernel"],
    recipe,
    bias=params["bias"],
  )
  np.testing.assert_allclose(y, expected, **TOLERANCE)


def test_dense_general_takes_the_contracted_axes_for_one_token():
  layer = BitDenseGeneral((3, 2), axis=(1, -1))
  x, y, params = run(layer, (2, 4, 5, 6))
  dense = BitDense(6)
  flat = {
    "kernel": params["kernel"].reshape(24, 6),
    "bias": params["bias"].reshape(6),
  }
  tokens = jnp.transpose(x, (0, 2, 1, 3)).reshape(2, 5, 24)
  expected = dense.apply({"params": flat}, tokens).reshape(2, 5, 3, 2)
  np.testing.assert_allclose(y, expected, **TOLERANCE)


def test_stacked_kernels_of_dense_general_have_scales_of_their_own():
  layer = BitDenseGeneral(5, batch_dims=(0,))
  x, y, params = run(layer, (3, 4, 8))
  for i in range(3):
    alone = {"params": jax.tree.map(lambda a, i=i: a[i], params)}
    np.testing.assert_allclose(
      y[i], BitDense(5).apply(alone, x[i]), **TOLERANCE
    )


def test_batch_dims_that_do_not_lead_are_refused():
  layer = BitDenseGeneral(5, batch_dims=(1,))
  with pytest.raises(ValueError, match=r"batch_dims is \(1,\).*leading"):
    layer.init(jax.random.key(0), jnp.ones((2, 3, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ("b158", "b158_median", "bitnet_2b4t"))
@pytest.mark.parametrize("rank", (1, 2, 3))
def test_conv_is_norm_of_the_example_quantize_convolve(rank, recipe):
  layer = BitConv(4, (3,) * rank, strides=2, recipe=recipe)
  x, y, params = run(layer, (2, *(7, 6, 5)[:rank], 3))
  recipe = RECIPES[recipe]
  axes = tuple(range(1, x.ndim))
  x = np.asarray(x, np.float64)
  if recipe.norm:
    x = x - x.mean(axes, keepdims=True)
    x = x / np.sqrt((x**2).mean(axes, keepdims=True) + 1e-5)
  x = recipe.acts.quantize(jnp.array(x, jnp.float32), axes=axes).dequantize()
  kernel = params["kernel"]
  kernel = recipe.weights.quantize(kernel).dequantize()
  spatial = "DHW"[:rank]
  expected = jax.lax.conv_general_dilated(
    x,
    kernel,
    (2,) * rank,
    "SAME",
    dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
  )
  np.testing.assert_allclose(y, expected, **TOLERANCE)


def test_conv_tells_two_one_channel_images_apart():
  layer = BitConv(4, (3, 3))
  image = jnp.zeros((1, 8, 8, 1))
  images = jnp.concatenate(
    [image.at[:, 2, :].set(1.0), image.at[:, :, 5].set(1.0)]
  )
  y, _ = layer.init_with_output(jax.random.key(0), images)
  assert np.abs(y[0] - y[1]).max() > 0.1


def test_examples_of_a_conv_do_not_depend_on_each_other():
  layer = BitConv(4, (3, 3))
  x, y, params = run(layer, (2, 3, 6, 6, 2))
  alone = layer.apply({"params": params}, x[1, 2])
  np.testing.assert_allclose(y[1, 2], alone, **TOLERANCE)


@pytest.mark.parametrize(
  "layer, shape, message",
  [
    (BitConv(4, (3, 3)), (8, 3), r"window \(3, 3\).*at least 3 axes"),
    (
      BitConv(4, (3,), feature_group_count=2),
      (1, 8, 3),
      "feature_group_count is 2.*3 input.*4 output",
    ),
    (BitConv(4, (3, 3), padding="CAUSAL"), (1, 8, 8, 3), "'CAUSAL'.*not 2"),
  ],
)
def test_what_a_conv_cannot_do_is_named(layer, shape, message):
  with pytest.raises(ValueError, match=message):
    layer.init(jax.random.key(0), jnp.ones(shape))


@pytest.mark.slow
@pytest.mark.parametrize(
  "layer, shape",
  [
    (BitDense(6, recipe=STOCHASTIC), (4, 32)),
    (BitDenseGeneral(6, batch_dims=(0,), recipe=STOCHASTIC), (2, 4, 32)),
    (BitConv(6, (3, 3), recipe=STOCHASTIC), (2, 5, 5, 4)),
  ],
)
def test_stochastic_rounding_draws_from_the_stream_quantize(layer, shape):
  x = jax.random.normal(jax.random.key(0), shape)
  streams = {"params": jax.random.key(1), "quantize": jax.random.key(2)}
  variables = layer.init(streams, x)

  def apply(seed):
    return layer.apply(variables, x, rngs={"quantize": jax.random.key(seed)})

  np.testing.assert_array_equal(apply(0), apply(0))
  assert np.any(np.asarray(apply(0)) != np.asarray(apply(1)))
  with pytest.raises(Exception, match="quantize"):
    layer.apply(variables, x)


@pytest.mark.parametrize(
  "layer, shape, names, spec",
  [
    (BitDense, (4, 8), ("embed", "mlp"), P("data", "model")),
    (BitDenseGeneral, (4, 8), ("embed", "mlp"), P("data", "model")),
    (BitConv, (2, 9, 8), (None, "embed", "mlp"), P(None, "data", "model")),
  ],
)
def test_kernel_takes_logical_axes_from_its_initializer(
  layer, shape, names, spec
):
  init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), names)
  kwargs = {"kernel_size": (3,)} if layer is BitConv else {}
  layer = layer(features=6, kernel_init=init, **kwargs)
  abstract = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones(shape))
  rules = (("embed", "data"), ("mlp", "model"))
  specs = nn.logical_to_mesh(nn.get_partition_spec(abstract), rules)
  assert specs["params"]["kernel"] == spec
  # Boxed or not, the layer runs.
  variables = layer.init(jax.random.key(0), jnp.ones(shape))
  boxed, bare = (
    layer.apply(v, jnp.ones(shape)) for v in (variables, nn.unbox(variables))
  )
  np.testing.assert_array_equal(boxed, bare)


@pytest.mark.slow
@pytest.mark.parametrize(
  "layer, shape",
  [
    (BitDense(3), (0, 4)),
    (BitDenseGeneral(3, axis=(1, 2)), (0, 4, 5)),
    (BitDenseGeneral((2, 3)), (0, 2, 4)),
    (BitConv(3, (3, 3)), (0, 6, 6, 8)),
  ],
)
def test_empty_batch_gives_an_empty_result_and_no_gradient(layer, shape):
  params = layer.init(jax.random.key(0), jnp.ones((2, *shape[1:])))
  y, vjp = jax.vjp(lambda p: layer.apply(p, jnp.ones(shape)), params)
  assert y.shape[0] == 0
  (gradient,) = vjp(y)
  for leaf in jax.tree.leaves(gradient):
    np.testing.assert_array_equal(leaf, 0.0)
