"""Frozen NNX models: the outputs of the trained, the tensors of Linen."""

import functools
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bitnet_jax import Packed, QTensor
from bitnet_jax import nnx as bit
from bitnet_jax.convert import bitlinearize
from bitnet_jax.export import write_stablehlo
from bitnet_jax.inference import (
  code_statistics,
  freeze,
  load_frozen,
  measure_size,
  save_frozen,
)
from tests.convert.nnx_models import Transformer
from tests.nnx.layers_test import LAYERS, make
from tests.nnx.models import IMAGES, ROWS, LinenNet, Net, Places, call


@functools.cache
def net():
  return Net(nnx.Rngs(0))


@functools.cache
def places():
  return Places(nnx.Rngs(0))


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
  "name",
  [
    "batched",  # The network below has others.
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in LAYERS
      if name != "batched"
    ),
  ],
)
def test_frozen_layer_is_that_of_linen(name):
  layer, linen, x, _ = make(name, "b158")
  variables = bit.linen_variables(layer)
  expected = freeze(variables, linen, x)
  frozen = freeze(layer)
  assert_same(bit.linen_variables(frozen), expected)
  found = call(frozen, x)
  np.testing.assert_array_equal(found, jax.jit(linen.apply)(expected, x))
  np.testing.assert_array_equal(found, call(layer, x))
  assert isinstance(layer.kernel.get_value(), jax.Array)  # Not the original.


@pytest.mark.slow
def test_network_has_tensors_outputs_and_sizes_of_its_linen_twin(tmp_path):
  model, linen = nnx.clone(net()), LinenNet()
  model.norm.mean.set_value(jnp.linspace(-1, 1, 8))
  variables = bit.linen_variables(model)
  assert variables.keys() == {"params", "batch_stats"}
  expected = freeze(variables, linen, IMAGES)
  frozen = freeze(model)
  assert_same(bit.linen_variables(frozen), expected)
  y = jax.jit(linen.apply)(expected, IMAGES)
  np.testing.assert_array_equal(call(frozen, IMAGES), y)
  assert measure_size(frozen) == measure_size(expected)
  assert code_statistics(frozen) == code_statistics(expected)
  # Each reads the files of the other.
  save_frozen(tmp_path / "nnx", frozen, record={"step": 3})
  save_frozen(tmp_path / "linen", expected, linen, record={"step": 3})
  tensors = [tmp_path / n / "model.safetensors" for n in ("nnx", "linen")]
  assert tensors[0].read_bytes() == tensors[1].read_bytes()
  abstract = nnx.eval_shape(lambda: Net(nnx.Rngs(1)))
  found = load_frozen(tmp_path / "linen", abstract)
  assert found.record == {"step": 3}
  np.testing.assert_array_equal(call(found.model, IMAGES), y)
  model, variables, _ = load_frozen(tmp_path / "nnx", linen)
  np.testing.assert_array_equal(jax.jit(model.apply)(variables, IMAGES), y)


def test_layers_in_all_places_are_frozen(tmp_path):
  model = places()
  frozen = freeze(model)
  expected = nnx.clone(model)
  expected.eval()
  y = call(expected, ROWS)
  np.testing.assert_array_equal(call(frozen, ROWS), y)
  assert frozen.again is frozen.named["one"]
  leaves = jax.tree.leaves(bit.linen_variables(frozen), is_leaf=is_codes)
  assert sum(map(is_codes, leaves)) == 3
  assert frozen.stack.kernel.get_value().scale.shape == (3, 1, 1)
  assert_same(
    nnx.state(freeze(frozen), nnx.Param), nnx.state(frozen, nnx.Param)
  )
  # A trace finds the same.
  assert_same(
    bit.linen_variables(freeze(model, ROWS)), bit.linen_variables(frozen)
  )
  save_frozen(tmp_path, frozen)
  found = load_frozen(tmp_path, model)
  np.testing.assert_array_equal(call(found.model, ROWS), y)
  assert code_statistics(found.variables).keys() == {
    *("again", "blocks/0", "stack")
  }
  graph, state = nnx.split(found.model)
  merged = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
  np.testing.assert_array_equal(merged(state, ROWS), y)


def is_codes(leaf):
  return isinstance(leaf, QTensor) and isinstance(leaf.qvalue, Packed)


@pytest.mark.slow
def test_example_tells_which_axis_stacks_kernels():
  model = Places(nnx.Rngs(0), depth=8)
  with pytest.raises(ValueError, match=r"'stack' is stored as \[8, 8, 8\]"):
    freeze(model)
  frozen = freeze(model, jax.ShapeDtypeStruct(ROWS.shape, ROWS.dtype))
  model.eval()
  np.testing.assert_array_equal(call(frozen, ROWS), call(model, ROWS))


@pytest.mark.slow
def test_converted_model_is_frozen():
  model, _ = bitlinearize(
    Transformer(nnx.Rngs(0)), [("out", "float"), (".*", "b158")]
  )
  x = jax.random.normal(jax.random.key(0), (2, 8, 8))
  frozen = freeze(model)
  np.testing.assert_array_equal(call(frozen, x), call(model, x))
  assert len(measure_size(frozen).kernels) == 1 + 2 * 5 + 1


@pytest.mark.parametrize("dtype", (jnp.bfloat16, jnp.float16))
def test_dtype_of_the_output_stays(dtype):
  # Weights that are cast after the layer is made, as for inference.
  layer = bit.BitLinear(4, 4, rngs=nnx.Rngs(0))
  nnx.update(layer, jax.tree.map(lambda a: a.astype(dtype), nnx.state(layer)))
  x = jnp.ones((2, 4), dtype)
  found, expected = call(freeze(layer), x), call(layer, x)
  assert found.dtype == expected.dtype == dtype
  np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", (jnp.bfloat16, jnp.float16))
def test_network_in_half_precision_is_frozen(dtype):
  model, x = Net(nnx.Rngs(0), dtype), IMAGES.astype(dtype)
  found, expected = call(freeze(model), x), call(model, x)
  assert found.dtype == expected.dtype
  np.testing.assert_array_equal(found, expected)


def test_statistics_compare_codes():
  layer = bit.BitLinear(2, 4, use_bias=False, rngs=nnx.Rngs(0))
  layer.kernel.set_value(jnp.asarray([[1.0, 1, 0, 0], [-1, 1, 0, 0]]))
  before = freeze(layer)
  layer.kernel.set_value(jnp.asarray([[1.0, 1, 0, 0], [1, 1, 0, 0]]))
  found = code_statistics(freeze(layer), before)[""]
  assert found == {
    "negative_fraction": 0.0,
    "zero_fraction": 0.5,
    "positive_fraction": 0.5,
    "scale": 0.5,
    "flip_rate": 0.125,
  }
  with pytest.raises(ValueError, match="before is of another model"):
    code_statistics(freeze(layer), freeze(net()))


class Own(nnx.Module):
  """Layers that multiply something else than they store."""

  def __init__(self, rngs):
    self.plain = bit.BitLinear(8, 8, rngs=rngs)
    self.halved = bit.BitLinear(8, 8, rngs=rngs)

  def __call__(self, x):
    halved = nnx.clone(self.halved)
    halved.kernel.set_value(self.halved.kernel.get_value() / 2)
    return halved(self.plain(x))


def test_layers_that_compute_their_kernels_are_refused():
  with pytest.raises(ValueError, match=r"not multiply their stored .*: halved"):
    freeze(Own(nnx.Rngs(0)), ROWS)
  layer = bit.BitLinear(8, 8, rngs=nnx.Rngs(0))
  normed = nnx.WeightNorm(layer, rngs=nnx.Rngs(1))
  with pytest.raises(ValueError, match=r"stored kernel.*: layer_instance"):
    freeze(normed)
  mask = jnp.ones((3, 3, 4, 4))
  masked = bit.BitConv(4, 4, (3, 3), mask=mask, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match="not multiply their stored kernel"):
    freeze(masked)


def test_kernel_that_another_layer_reads_otherwise_is_refused():
  model = Own(nnx.Rngs(0))
  model.halved.kernel = model.plain.kernel
  assert freeze(model).plain.kernel is not None  # Both read the same codes.
  model.other = nnx.Linear(8, 8, rngs=nnx.Rngs(1))
  model.other.kernel = model.plain.kernel
  with pytest.raises(ValueError, match=r"shares its kernel with 'other'"):
    freeze(model)


def test_what_is_not_frozen_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"nothing to freeze.*\[\]"):
    freeze(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
  with pytest.raises(ValueError, match=r"nothing to freeze.*'out'"):
    freeze(bitlinearize(Transformer(nnx.Rngs(0)), "float")[0])
  model = net()
  for function in (measure_size, code_statistics):
    with pytest.raises(ValueError, match="no frozen kernel; freeze them first"):
      function(model)
  with pytest.raises(ValueError, match="no frozen kernel; freeze them first"):
    save_frozen(tmp_path / "new", model)
  assert not (tmp_path / "new").exists()
  with pytest.raises(TypeError, match=r"given alone: freeze\(model\)"):
    freeze(nnx.state(model), model)
  with pytest.raises(ValueError, match="needs a recipe that quantizes it, and"):
    freeze(model).hidden(jnp.ones((1, 288)), strength=0.5)


def test_file_of_another_model_is_refused(tmp_path):
  save_frozen(tmp_path, freeze(net()))
  with pytest.raises(ValueError, match=r"do not fit .*/again/bias is not"):
    load_frozen(tmp_path, places())
  with pytest.raises(ValueError, match=r"is float32 \[3\], not bfloat16 \[3\]"):
    load_frozen(tmp_path, Net(nnx.Rngs(0), jnp.bfloat16))
  with pytest.raises(ValueError, match="give it as model"):
    load_frozen(tmp_path)
  with pytest.raises(
    TypeError, match="model is a ModuleMeta, neither a Linen nor"
  ):
    load_frozen(tmp_path, Net)
  with pytest.raises(TypeError, match=r"save_frozen\(folder, model\)"):
    save_frozen(tmp_path / "b", freeze(net()), net())


def test_abstract_model_with_random_keys_is_refused(tmp_path):
  save_frozen(tmp_path, freeze(places()))
  abstract = nnx.eval_shape(lambda: Places(nnx.Rngs(0)))
  with pytest.raises(ValueError, match=r"is abstract, .* drop/rngs/count"):
    load_frozen(tmp_path, abstract)


def test_program_is_the_model(tmp_path):
  frozen = freeze(net())
  write_stablehlo(tmp_path, frozen, None, {"x": IMAGES}, platforms=("cpu",))
  data = bytearray((tmp_path / "model.jax").read_bytes())
  program = jax.export.deserialize(data)
  # Its parameters are constants.
  np.testing.assert_array_equal(
    jax.jit(program.call)(x=IMAGES), jax.jit(lambda x: frozen(x))(IMAGES)
  )
  content = json.loads((tmp_path / "model.json").read_text())
  assert content["inputs"][0]["shape"] == ["b", "6", "6", "4"]
  with pytest.raises(TypeError, match="Net is given with variables dict"):
    write_stablehlo(tmp_path, frozen, {}, {"x": IMAGES})
