"""Frozen models on disk: whole, refused, or called damaged."""

import dataclasses
import functools
import hashlib
import json
import os
import random
import resource

import flax.linen as nn
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from safetensors.flax import load_file, save_file

from bitnet_jax import BitDense, Recipe
from bitnet_jax.inference import freeze, load_frozen, save_frozen
from bitnet_jax.inference.description import build
from bitnet_jax.inference.storage import DESCRIPTION, TENSORS
from bitnet_jax.models.mlp import Mlp, MlpConfig
from tests.corruption import corrupt
from tests.inference.freeze_test import MLP, models

RECORD = {"step": 3, "words": ["é"]}


@functools.cache
def small():
  model = Mlp(MlpConfig(**MLP), (("head", "int4"), (".*", "b158")))
  variables = model.init(jax.random.key(0), jnp.ones((1, 7)))
  return freeze(variables, model), model


@pytest.fixture
def saved(tmp_path):
  folder = tmp_path / "frozen"
  save_frozen(folder, *small(), RECORD)
  return folder


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  dtypes = [jax.tree.map(lambda a: a.dtype, tree) for tree in (found, expected)]
  assert dtypes[0] == dtypes[1]


def test_model_comes_back_whole(saved):
  found = load_frozen(saved)
  variables, model = small()
  assert_same(found.variables, variables)
  assert found.record == RECORD
  assert found.model.cfg == model.cfg
  x = jnp.ones((2, 7))
  np.testing.assert_array_equal(
    jax.jit(found.model.apply)(found.variables, x),
    jax.jit(model.apply)(variables, x),
  )
  assert sorted(p.name for p in saved.iterdir()) == [DESCRIPTION, TENSORS]


@pytest.mark.slow
@pytest.mark.parametrize("name", models())
def test_every_family_comes_back_whole(tmp_path, name):
  make, inputs, more = models()[name]
  model = make("b158")
  init = jax.jit(functools.partial(model.init, **more))
  variables = freeze(init(jax.random.key(0), *inputs), model)
  save_frozen(tmp_path, variables, model)
  found = load_frozen(tmp_path)
  assert_same(found.variables, variables)
  assert found.model.cfg == model.cfg


def test_description_and_header_are_small(tmp_path):
  model = Mlp(MlpConfig(**MLP | {"width": 128}), "b158")
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 128)))
  save_frozen(tmp_path, freeze(variables, model), model)
  tensors = load_file(tmp_path / TENSORS)
  payload = sum(array.nbytes for array in tensors.values())
  written = sum(path.stat().st_size for path in tmp_path.iterdir())
  assert written - payload <= 0.01 * payload + 4096


class Other(nn.Module):
  """A module that is not of this package."""

  @nn.compact
  def __call__(self, x):
    return BitDense(3, name="dense")(x)


def test_encoder_of_before_poolings_reads_the_first_token():
  model = models()["classifier scanned"][0]("b158")
  sizes = dataclasses.asdict(model.cfg)
  assert sizes.pop("pooling") == "mean"
  content = {"name": "encoder", "sizes": sizes, "recipes": []}
  assert build(content, largest=10**6, arrays=20).cfg.pooling == "first"


def test_model_of_another_is_given_when_it_is_read(tmp_path):
  x = jnp.ones((1, 5))
  variables = freeze(Other().init(jax.random.key(0), x), Other(), x)
  with pytest.raises(ValueError, match="Other is not a model of this package"):
    freeze(variables, Other())
  save_frozen(tmp_path, variables, Other())
  with pytest.raises(ValueError, match="not one of this package; give it as"):
    load_frozen(tmp_path)
  assert_same(load_frozen(tmp_path, Other()).variables, variables)


def test_nothing_is_overwritten(saved):
  before = {path: path.read_bytes() for path in saved.iterdir()}
  with pytest.raises(FileExistsError, match="choose another folder"):
    save_frozen(saved, *small())
  assert {path: path.read_bytes() for path in saved.iterdir()} == before


def test_what_is_not_frozen_or_not_finite_is_not_written(tmp_path):
  variables, model = small()
  fresh = model.init(jax.random.key(0), jnp.ones((1, 7)))
  with pytest.raises(ValueError, match="freeze them first"):
    save_frozen(tmp_path / "a", nn.unbox(fresh), model)
  layer = variables["params"]["layer_1"]
  layer = layer | {"bias": layer["bias"].at[2].set(jnp.nan)}
  params = variables["params"] | {"layer_1": layer}
  with pytest.raises(ValueError, match=r"params/layer_1/bias holds .* finite"):
    save_frozen(tmp_path / "b", {"params": params}, model)
  wider = Mlp(MlpConfig(**MLP | {"width": 25}), model.recipe)
  with pytest.raises(ValueError, match=r"layer_0.*\[7, 24\].*not.*\[7, 25\]"):
    save_frozen(tmp_path / "c", variables, wider)
  assert not any(tmp_path.iterdir())


def test_bad_reading_back_is_loud(tmp_path, monkeypatch):
  monkeypatch.setattr(
    "bitnet_jax.inference.storage.from_tensors",
    lambda tensors, kernels: small()[0] | {"more": jnp.ones(1)},
  )
  monkeypatch.setattr(
    "bitnet_jax.inference.storage._check_fits", lambda *_: None
  )
  with pytest.raises(OSError, match="was written, but reads differently"):
    save_frozen(tmp_path, *small())
  assert (tmp_path / TENSORS).exists()


def rewrite(folder, change=None, tensors=None):
  """Changes a description, or the arrays with their sum in it."""
  content = json.loads((folder / DESCRIPTION).read_text())
  if tensors is not None:
    arrays = load_file(folder / TENSORS)
    tensors(arrays)
    save_file(arrays, folder / TENSORS)
    data = (folder / TENSORS).read_bytes()
    content["sha256"] = hashlib.sha256(data).hexdigest()
  if change is not None:
    change(content)
  (folder / DESCRIPTION).write_text(json.dumps(content))


CODES = "params/layer_0/kernel.codes"
SCALE = "params/layer_0/kernel.scale"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.pop("kernels"), "not the description of a frozen model"),
    (lambda c: c.update(format=2), "has the format 2, not 1"),
    (lambda c: c.update(sha256="0"), "is not the file that model.json"),
    (lambda c: c["model"].update(name="mpl"), "did you mean 'mlp'"),
    (lambda c: c["model"]["sizes"].pop("width"), "'width'"),
    (lambda c: c["model"]["sizes"].update(width=10**15), "width is 1000"),
    (lambda c: c["model"]["sizes"].update(width="24"), "width"),
    (lambda c: c["model"]["sizes"].update(depth=1), "layer_1/kernel is tern"),
    # Takes minutes to trace, though there are more parameters.
    (lambda c: c["model"]["sizes"].update(depth=400), "depth is 400, .* 100"),
    (lambda c: c["model"]["recipes"][0].update(paths=["a"] * 400), "400|100"),
    (lambda c: c["model"]["sizes"].update(width=10**400), "width is 1000"),
    (lambda c: c["model"]["sizes"].update(dropout=float("nan")), "of no model"),
    (lambda c: c["model"]["recipes"].pop(), "no recipe rule matches"),
    (lambda c: c.update(kernels=[]), "has no attribute 'items'"),
    (
      lambda c: c["kernels"]["params/layer_0/kernel"].update(shape=[7, 25]),
      r"kernel.codes is uint8\[34\], not uint8\[35\]",
    ),
    (
      lambda c: c["kernels"]["params/layer_0/kernel"].update(
        shape=[10**9, 10**9]
      ),
      r"kernel.codes is uint8\[34\], not",
    ),
    (
      lambda c: c["kernels"]["params/layer_0/kernel"].update(layout="quad"),
      "layout is 'quad'",
    ),
    (
      lambda c: c["kernels"].update(a={"shape": [5], "layout": "int8"}),
      r"kernel a: shape is \(5,\); that is no kernel's",
    ),
    (
      lambda c: c["kernels"].update(a={"layout": "int8"}),
      "kernel a: .*'shape'",
    ),
  ],
)
def test_description_that_does_not_fit_is_refused(saved, change, message):
  rewrite(saved, change)
  with pytest.raises(ValueError, match=message):
    load_frozen(saved)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda a: a.pop(SCALE), "kernel.scale is not there"),
    (lambda a: a.update({SCALE: -a[SCALE]}), "is not positive float32"),
    (lambda a: a.update({SCALE: a[SCALE] * jnp.nan}), "not finite"),
    (
      lambda a: a.update({SCALE: a[SCALE].astype(jnp.bfloat16)}),
      "is not positive float32",
    ),
    (lambda a: a.update({CODES: a[CODES].at[3].set(243)}), "no codes"),
    (lambda a: a.update({CODES: a[CODES][:-1]}), r"uint8\[33\], not uint8"),
    (lambda a: a.pop("params/head/bias"), "head/bias is not there"),
    (
      lambda a: a.update({"params/head/bias": jnp.ones(4)}),
      r"head/bias is float32\[4\], not float32\[3\]",
    ),
    (lambda a: a.update(extra=jnp.ones(1)), "extra is .* not expected"),
  ],
)
def test_arrays_that_do_not_fit_are_refused(saved, change, message):
  rewrite(saved, tensors=change)
  with pytest.raises(ValueError, match=message):
    load_frozen(saved)


def test_files_that_are_not_there_are_named(saved):
  (saved / TENSORS).unlink()
  with pytest.raises(FileNotFoundError, match=TENSORS):
    load_frozen(saved)
  (saved / DESCRIPTION).unlink()
  with pytest.raises(FileNotFoundError, match=DESCRIPTION):
    load_frozen(saved)


def test_endless_description_is_not_read(saved, monkeypatch):
  monkeypatch.setattr("bitnet_jax.files.LARGEST_JSON", 100)
  with pytest.raises(ValueError, match="more than 100 bytes"):
    load_frozen(saved)


@pytest.mark.parametrize("name", [DESCRIPTION, TENSORS])
def test_pipe_in_place_of_a_file_is_named_at_once(saved, name):
  (saved / name).unlink()
  os.mkfifo(saved / name)
  with pytest.raises(ValueError, match=f"{name} is a pipe or device"):
    load_frozen(saved)


def test_header_of_gigabytes_is_refused(saved):
  def change(content):
    content["sha256"] = hashlib.sha256(data).hexdigest()

  data = (2**30).to_bytes(8, "little") + b" " * 100
  (saved / TENSORS).write_bytes(data)
  rewrite(saved, change)
  with pytest.raises(ValueError, match="a header of 1073741824 bytes"):
    load_frozen(saved)


def test_deep_description_is_damaged(saved):
  (saved / DESCRIPTION).write_text("[" * 100_000)
  with pytest.raises(ValueError, match="is damaged"):
    load_frozen(saved)


def check_corrupted(folder, seed):
  """Corrupts one of the files; the other speaks of it as if it were right."""
  rng = random.Random(seed)
  name = rng.choice([DESCRIPTION, TENSORS])
  path = folder / name
  original = path.read_bytes()
  description = (folder / DESCRIPTION).read_bytes()
  path.write_bytes(corrupt(original, rng))
  if name == TENSORS:
    content = json.loads(description)
    content["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / DESCRIPTION).write_text(json.dumps(content))
  try:
    load_frozen(folder)
  except (OSError, ValueError):
    pass
  finally:
    (folder / DESCRIPTION).write_bytes(description)
    path.write_bytes(original)


@hypothesis.settings(
  max_examples=60,
  deadline=None,
  derandomize=True,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(seed=st.integers(0, 2**32))
def test_corrupted_files_are_errors(saved, seed):
  check_corrupted(saved, seed)


@pytest.mark.slow
def test_many_corrupted_files_are_errors_within_memory(saved):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for seed in range(2000):
    check_corrupted(saved, seed)
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert grown * 1024 < 1e9


def test_recipe_of_ones_own_is_kept(tmp_path):
  recipe = Recipe(acts=None, norm="rms_norm")
  model = Mlp(MlpConfig(**MLP), recipe)
  variables = freeze(model.init(jax.random.key(0), jnp.ones((1, 7))), model)
  save_frozen(tmp_path, variables, model)
  rules = dict(load_frozen(tmp_path).model.recipe)
  assert set(rules.values()) == {recipe}
