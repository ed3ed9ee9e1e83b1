"""Models as StableHLO."""

import functools
import inspect
import json

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import BitDense
from bitnet_jax.export import write_stablehlo
from bitnet_jax.inference import freeze
from tests.inference.freeze_test import models


class Net(nn.Module):
  """A layer, and a table that a program has to hold as well."""

  @nn.compact
  def __call__(self, x, scale=None, *, add=0):
    y = BitDense(5)(x) + add
    return y if scale is None else y * scale[:, None]


@pytest.fixture
def frozen():
  model, x = Net(), jax.random.normal(jax.random.key(0), (3, 8))
  return model, freeze(model.init(jax.random.key(1), x), model, x), x


def read(folder):
  return jax.export.deserialize(bytearray((folder / "model.jax").read_bytes()))


def test_program_takes_batches_of_any_size(tmp_path, frozen):
  model, variables, x = frozen
  scale = jnp.arange(3.0)
  write_stablehlo(
    str(tmp_path), model, variables, dict(x=x, scale=scale), add=2
  )
  program = read(tmp_path)
  for n in (1, 3, 7):
    x = jax.random.normal(jax.random.key(n), (n, 8))
    scale = jnp.linspace(1, 2, n)
    found = program.call(x=x, scale=scale)
    expected = jax.jit(model.apply, static_argnames="add")(
      variables, x, scale, add=2
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
  content = json.loads((tmp_path / "model.json").read_text())
  assert content["inputs"] == [
    {"name": "scale", "shape": ["b"], "dtype": "float32"},
    {"name": "x", "shape": ["b", "8"], "dtype": "float32"},
  ]
  assert content["outputs"] == [{"shape": ["b", "5"], "dtype": "float32"}]
  arguments = ["platform_index", "scale", "x"]
  assert content["arguments_of_bytecode"] == arguments


def test_axes_of_other_sizes_have_other_names(tmp_path, frozen):
  model, variables, x = frozen
  del model, variables

  class Two(nn.Module):
    def __call__(self, x, y):
      return x.sum(0) + y.sum(0)

  write_stablehlo(tmp_path, Two(), {}, dict(x=x, y=jnp.ones((9, 8))))
  content = json.loads((tmp_path / "model.json").read_text())
  shapes = {entry["name"]: entry["shape"] for entry in content["inputs"]}
  assert shapes["x"][0] != shapes["y"][0]


def test_ternary_weights_are_packed_in_the_program(tmp_path, frozen):
  model, variables, x = frozen
  write_stablehlo(tmp_path, model, variables, dict(x=x))
  assert "tensor<2x5xui8>" in read(tmp_path).mlir_module()


def test_model_that_needs_a_size_is_an_error(tmp_path, frozen):
  class Fixed(nn.Module):
    def __call__(self, x):
      return x.reshape(3, 8).sum() + jnp.zeros(int(x.shape[0]))

  x = frozen[-1]
  with pytest.raises(ValueError, match="Fixed needs to know the sizes"):
    write_stablehlo(tmp_path / "out", Fixed(), {}, dict(x=x))
  assert not (tmp_path / "out").exists()


def test_program_that_computes_otherwise_fails_loudly(
  tmp_path, frozen, monkeypatch
):
  model, variables, x = frozen
  other = jax.export.export(jax.jit(lambda x: x[:, :5]))(x=x)
  monkeypatch.setattr(jax.export, "deserialize", lambda data: other)
  with pytest.raises(OSError, match="does not reproduce"):
    write_stablehlo(tmp_path, model, variables, dict(x=x))


@pytest.mark.slow
@pytest.mark.parametrize("name", models())
def test_every_family_is_a_program(tmp_path, name):
  make, inputs, more = models()[name]
  model = make("b158")
  init = jax.jit(functools.partial(model.init, **more))
  variables = freeze(nn.unbox(init(jax.random.key(0), *inputs)), model)
  names = list(inspect.signature(type(model).__call__).parameters)[1:]
  named = dict(zip(names, inputs, strict=False))
  arrays = {n: x for n, x in named.items() if x is not None}
  rest = {n: None for n, x in named.items() if x is None}
  write_stablehlo(tmp_path, model, variables, arrays, **rest, **more)
