"""Every layer under ``jax.shard_map`` and on meshes of both types of axes."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from bitnet_jax import BitConv
from tests.layers.layers import LAYERS, layer, loss

# Sums over devices in another order.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
RECIPES = (
  "b158",
  *(pytest.param(r, marks=pytest.mark.slow) for r in ("b158_median", "trilm")),
)


def assert_equal(actual, expected):
  for a, e in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
    np.testing.assert_allclose(np.asarray(a), np.asarray(e), **TOLERANCE)


def mesh_of(axis_type, **sizes):
  types = (axis_type,) * len(sizes)
  return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types)


@functools.cache
def alone(name, recipe):
  """A layer's loss, its operands, and gradients on one device."""
  apply, params, x = layer(name, recipe)
  value = loss(apply)
  return value, params, x, jax.grad(value, argnums=(0, 1))(params, x)


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", (True, False))
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_under_shard_map_are_those_of_one_device(
  name, recipe, check_vma
):
  value, params, x, expected = alone(name, recipe)
  mesh = mesh_of(AxisType.Auto, data=2)
  whole, split = PartitionSpec(), PartitionSpec("data")

  def gradients(params, x):
    if check_vma:  # Then JAX sums over devices what they share.

      def mean(params, x):
        return jax.lax.pmean(value(params, x), "data")

      return jax.grad(mean, argnums=(0, 1))(params, x)
    of_params, of_x = jax.grad(value, argnums=(0, 1))(params, x)
    return jax.lax.pmean(of_params, "data"), of_x / 2

  sharded = jax.shard_map(
    gradients,
    mesh=mesh,
    in_specs=(whole, split),
    out_specs=(whole, split),
    check_vma=check_vma,
  )
  assert_equal(jax.jit(sharded)(params, x), expected)


@pytest.mark.parametrize("axis_type", (AxisType.Auto, AxisType.Explicit))
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_on_a_mesh_are_those_of_one_device(name, recipe, axis_type):
  value, params, x, expected = alone(name, recipe)
  with jax.set_mesh(mesh_of(axis_type, data=2, other=2)):
    params = jax.device_put(params, PartitionSpec())
    x = jax.device_put(x, PartitionSpec("data"))
    gradients = jax.jit(jax.grad(value, argnums=(0, 1)))(params, x)
    for gradient, operand in zip(
      *map(jax.tree.leaves, (gradients, (params, x))), strict=True
    ):
      assert jax.typeof(gradient).sharding == jax.typeof(operand).sharding
  assert_equal(gradients, expected)


@pytest.mark.parametrize("split", ((None, "other"), ("other", None)), ids=str)
def test_kernel_may_be_split_over_an_explicit_axis(split):
  value, params, x, expected = alone("BitDense", "b158")
  specs = {"kernel": split, "bias": split[1:]}
  with jax.set_mesh(mesh_of(AxisType.Explicit, data=2, other=2)):
    params = {
      name: jax.device_put(params[name], PartitionSpec(*spec))
      for name, spec in specs.items()
    }
    x = jax.device_put(x, PartitionSpec("data"))
    gradients = jax.jit(jax.grad(value, argnums=(0, 1)))(params, x)
  assert_equal(gradients, expected)


@pytest.mark.parametrize("groups", (pytest.param(2, marks=pytest.mark.slow), 4))
def test_grouped_convolution_has_its_gradient_where_the_batch_is_whole(groups):
  # XLA's partitioner gives another weight gradient to nn.Conv there.
  module = BitConv(8, (3, 3), feature_group_count=groups)
  x = jax.random.normal(jax.random.key(0), (8, 6, 6, 4))
  params = module.init(jax.random.key(1), x)
  gradient = jax.jit(
    jax.grad(lambda params, x: (module.apply(params, x) ** 2).mean())
  )
  expected = gradient(params, x)
  with jax.set_mesh(mesh_of(AxisType.Auto, data=2, other=2)):
    x = jax.device_put(x, PartitionSpec("data"))
    assert_equal(gradient(jax.device_put(params, PartitionSpec()), x), expected)
