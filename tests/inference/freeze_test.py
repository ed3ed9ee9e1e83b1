"""Frozen models compute what the trained ones do."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import (
  RECIPES,
  BitConv,
  BitDense,
  BitDenseGeneral,
  QTensor,
  Recipe,
)
from bitnet_jax.inference import freeze
from bitnet_jax.inference.size import measure_size
from bitnet_jax.models.cnn import Cnn
from bitnet_jax.models.gnn import Gnn
from bitnet_jax.models.mlp import Mlp, MlpConfig
from bitnet_jax.models.wide_mlp import WideMlp
from bitnet_jax.types import Packed
from tests.models import cnn_test, gnn_test, transformers_test, wide_mlp_test

MLP = {
  "width": 24,
  "depth": 2,
  "dropout": 0.0,
  "num_classes": 3,
  "dtype": "float32",
  "param_dtype": "float32",
}


FEW = ("mlp", "decoder scanned")


def models():
  """Returns by name: a function from a recipe to a model, inputs, options."""
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 10)), jnp.float32)
  images, _ = cnn_test.make_batch()
  found = {"mlp": (functools.partial(Mlp, MlpConfig(**MLP)), (x,), {})}
  for name, changes in (("cnn", {}), ("cnn norm", {"batch_norm": True})):
    config = cnn_test.make_config(**changes)
    found[name] = functools.partial(Cnn, config), (images,), {}
  for kind in ("sgc", "gcn", "sage", "gat"):
    make = functools.partial(Gnn, gnn_test.make_config(kind=kind))
    found[kind] = make, gnn_test.make_graph(), {}
  make = functools.partial(WideMlp, wide_mlp_test.CONFIG)
  found["wide_mlp"] = make, wide_mlp_test.BAGS, {"num_documents": 4}
  for family in transformers_test.FAMILIES:
    for form in ("scanned", "unrolled"):
      make = functools.partial(
        transformers_test.make, family, scan_layers=form == "scanned"
      )
      inputs = transformers_test.inputs_of(family)
      found[f"{family} {form}"] = make, inputs, {}
  return found


def compare(recipe, names=None):
  """Returns the names of models whose outputs change when they are frozen."""
  different = []
  for name, (make, inputs, more) in models().items():
    if names is not None and name not in names:
      continue
    model, keys = make(recipe), {"quantize": jax.random.key(2)}
    init = jax.jit(functools.partial(model.init, **more))
    variables = nn.unbox(init(jax.random.key(1), *inputs))
    call = jax.jit(functools.partial(model.apply, rngs=keys, **more))
    expected = call(variables, *inputs)
    found = call(freeze(variables, model), *inputs)
    if not np.array_equal(expected, found) or not np.isfinite(expected).all():
      different.append(name)
  return different


def compare_few():
  return compare("b158", FEW)


def compare_all():
  return compare("b158")


def compare_recipes():
  by_channel = dataclasses.replace(RECIPES["b158"].weights, axis=0)
  found = {"by channel": compare(Recipe(by_channel), ("mlp",))}
  for name in RECIPES.keys() - {"float"}:
    found[name] = compare(name, ("mlp", "cnn"))
  return found


@pytest.mark.slow
def test_outputs_stay_the_same_to_the_bit(optimized):
  assert optimized(compare_few) == []


@pytest.mark.slow
def test_outputs_of_all_models_stay_the_same(optimized):
  assert optimized(compare_all) == []


@pytest.mark.slow
def test_outputs_stay_the_same_under_all_recipes(optimized):
  found = optimized(compare_recipes)
  assert set().union(*found.values()) == set()
  assert len(found) == len(RECIPES)


class Net(nn.Module):
  """Another's model."""

  @nn.compact
  def __call__(self, x):
    x = BitConv(8, (3, 3), name="conv")(x)
    x = BitDenseGeneral((2, 3), axis=(-2, -1), name="general")(x)
    x = nn.Dense(8, name="plain")(x.reshape(len(x), -1))
    x = BitDense(5, recipe="int4", name="int4")(x)
    return BitDense(4, recipe="float", name="float")(x)


IMAGES = jnp.ones((2, 4, 4, 1))


def test_ternary_kernels_are_packed_and_no_others_touched():
  variables = nn.unbox(jax.jit(Net().init)(jax.random.key(0), IMAGES))
  params = freeze(variables, Net(), IMAGES)["params"]
  kernels = {name: layer["kernel"] for name, layer in params.items()}
  assert isinstance(kernels["conv"].qvalue, Packed)
  assert kernels["conv"].qvalue.data.shape == (3, 3, 1, 2)
  assert kernels["conv"].shape == (3, 3, 1, 8)
  assert isinstance(kernels["general"].qvalue, Packed)
  assert kernels["int4"].codes.dtype == jnp.int8
  for name in ("plain", "float"):
    before = variables["params"][name]["kernel"]
    np.testing.assert_array_equal(kernels[name], before)
  for name, layer in params.items():
    np.testing.assert_array_equal(
      layer["bias"], variables["params"][name]["bias"]
    )


def test_frozen_kernel_can_be_dequantized():
  x = jax.random.normal(jax.random.key(1), (3, 10))
  model = BitDense(6)
  variables = model.init(jax.random.key(0), x)
  kernel = freeze(variables, model, x)["params"]["kernel"]
  assert isinstance(kernel.qvalue, Packed)
  weights = RECIPES["b158"].weights
  expected = weights.quantize(variables["params"]["kernel"]).dequantize()
  np.testing.assert_array_equal(kernel.dequantize(), expected)


def test_another_model_needs_an_example():
  variables = nn.unbox(jax.jit(Net().init)(jax.random.key(0), IMAGES))
  with pytest.raises(ValueError, match=r"Net is not a model of this package.*"):
    freeze(variables, Net())


def test_float_model_is_refused():
  model = Mlp(MlpConfig(**MLP), "float")
  variables = model.init(jax.random.key(0), jnp.ones((1, 4)))
  with pytest.raises(ValueError, match=r"nothing to freeze.*'layer_0', 'lay"):
    freeze(variables, model)


def test_frozen_model_is_frozen_as_it_is():
  model = Mlp(MlpConfig(**MLP), "b158")
  variables = model.init(jax.random.key(0), jnp.ones((1, 4)))
  once = freeze(variables, model)
  twice = freeze(once, model)
  assert jax.tree.structure(once) == jax.tree.structure(twice)
  jax.tree.map(np.testing.assert_array_equal, once, twice)


@pytest.mark.parametrize("layer", [BitDense, BitDenseGeneral])
def test_dtype_of_the_output_stays(layer):
  model = layer(4, param_dtype=jnp.bfloat16)
  x = jnp.ones((2, 8), jnp.bfloat16)
  variables = model.init(jax.random.key(0), x)
  frozen = freeze(variables, model, x)
  assert isinstance(frozen["params"]["kernel"], QTensor)
  assert model.apply(variables, x).dtype == jnp.bfloat16
  assert model.apply(frozen, x).dtype == jnp.bfloat16


def test_size_counts_bits_and_bytes():
  model = Mlp(MlpConfig(**MLP | {"width": 43}), "b158")
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 37)))
  size = measure_size(freeze(variables, model))
  for name, kernel in size.kernels.items():
    if kernel.weights >= 1000:
      assert 1.6 <= kernel.bits <= 1.61, name
    assert 0.9 < kernel.entropy <= np.log2(3)
  count = sum(a.size for a in jax.tree.leaves(nn.unbox(variables)))
  assert size.parameters == count
  assert size.codes == pytest.approx(
    sum(k.weights for k in size.kernels.values()) / 5, rel=0.01
  )
  assert size.disk < size.memory < count * 4
  assert f"| all, in float32 | {count:,} | {4 * count:,} | 32.000 |" in (
    size.table()
  )


def test_entropy_is_that_of_the_codes():
  model = BitDense(4, use_bias=False)
  kernel = jnp.asarray([[1.0, 1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]])
  frozen = freeze({"params": {"kernel": kernel}}, model, jnp.ones((1, 2)))
  (size,) = measure_size(frozen).kernels.values()
  shares = np.array([1, 4, 3]) / 8
  assert size.entropy == pytest.approx(-(shares * np.log2(shares)).sum())
