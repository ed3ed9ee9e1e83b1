"""Functions that take a path take it as text, too, and as a path."""

import importlib
import inspect
import os
import pathlib

import jax.numpy as jnp
import pytest

from bitnet_jax.data.sources import planetoid
from bitnet_jax.data.text import saved, tokenizers
from bitnet_jax.export import (
  imports,
  read_hf,
  runs,
  write_gguf,
  write_hf,
  write_stablehlo,
)
from bitnet_jax.inference import load_frozen, save_frozen, tensors
from bitnet_jax.programs import frozen, writing
from bitnet_jax.programs.predicting import predictor
from bitnet_jax.report import site
from bitnet_jax.studies import unplanned
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder import metrics, records, trained, warm_start
from bitnet_jax.train.tasks import distillation

# A call of each function with a folder in which nothing is, and what it raises;
# those with ``None`` are called with text in their own tests.
TAKES = {
  write_gguf: None,
  write_hf: None,
  write_stablehlo: None,
  read_hf: (lambda f, path: f(path), FileNotFoundError),
  imports.import_hf: (
    lambda f, path: f(path, os.path.join(path, "out")),
    FileNotFoundError,
  ),
  runs.export_run: (
    lambda f, path: f(path, os.path.join(path, "out"), "hf"),
    ValueError,
  ),
  load_frozen: (lambda f, path: f(path), FileNotFoundError),
  save_frozen: None,
  tensors.load_tensors: (
    lambda f, path: f(os.path.join(path, "x")),
    FileNotFoundError,
  ),
  tensors.save_tensors: None,
  runner.run: (lambda f, path: f({}, path), ValueError),
  runner.evaluate_run: (lambda f, path: f(path), ValueError),
  runner.load_run: (lambda f, path: f(path), ValueError),
  runner.load_experiment: (lambda f, path: f(path), ValueError),
  trained.open_without_data: (lambda f, path: f(path), ValueError),
  trained.open_setup: (lambda f, path: f(path), ValueError),
  runner.load_model: (lambda f, path: f(path), ValueError),
  build: (lambda f, path: f({}, path), ValueError),
  frozen.load_frozen_run: (lambda f, path: f(path, "last"), ValueError),
  frozen.freeze_run: (
    lambda f, path: f(path, os.path.join(path, "out")),
    ValueError,
  ),
  frozen.evaluate_frozen: (lambda f, path: f(path), FileNotFoundError),
  frozen.load_frozen_model: (lambda f, path: f(path), FileNotFoundError),
  predictor.open_run: (lambda f, path: f(path), ValueError),
  predictor.open_frozen: (lambda f, path: f(path), FileNotFoundError),
  writing.writer_of_run: (lambda f, path: f(path), ValueError),
  writing.writer_of_frozen: (lambda f, path: f(path), FileNotFoundError),
  records.load: (lambda f, path: f(os.path.join(path, "x")), None),
  records.commit: (lambda f, path: f(of=[path]), None),
  records.append: (lambda f, path: f(os.path.join(path, "x"), {}), None),
  metrics.read_metrics: (lambda f, path: f(path), None),
  site.build: (
    lambda f, path: f(path, os.path.join(path, "out")),
    ValueError,
  ),
  unplanned.run_missing: (lambda f, path: f([], path, path), None),
  distillation.find_teacher: (lambda f, path: f(path), ValueError),
  warm_start.find: (lambda f, path: f(path), ValueError),
  warm_start.find_start: (lambda f, path: f(path), ValueError),
  planetoid.read: (lambda f, path: f(path, "cora"), FileNotFoundError),
  saved.spec_of: (lambda f, path: f({"kind": "bytes"}, path), None),
  saved.load_vocabulary: (
    lambda f, path: f({"kind": "bert", "fingerprint": ""}, path),
    FileNotFoundError,
  ),
  saved.save_vocabulary: (
    lambda f, path: f(
      tokenizers.load_tokenizer("bytes", texts=tuple), "bytes", path, cache=path
    ),
    None,
  ),
  tokenizers.load_tokenizer: (
    lambda f, path: f("bytes", texts=tuple, cache=path),
    None,
  ),
}
CALLED = [function for function, call in TAKES.items() if call is not None]


def test_functions_beside_these_take_text_too():
  for name in {function.__module__ for function in TAKES}:
    module = importlib.import_module(name)
    for function, member in inspect.getmembers(module, inspect.isfunction):
      if member.__module__ != name or function.startswith("_"):
        continue
      for parameter in inspect.signature(member).parameters.values():
        kinds = str(parameter.annotation)
        assert "Path" not in kinds or "str" in kinds, f"{name}.{function}"
        assert "Path" not in kinds or member in TAKES, f"{name}.{function}"


@pytest.mark.parametrize("kind", [str, pathlib.Path])
@pytest.mark.parametrize("function", CALLED, ids=lambda f: f.__name__)
def test_paths_are_taken_as_text(tmp_path, function, kind):
  call, error = TAKES[function]
  if error is None:
    call(function, kind(tmp_path))
  else:
    with pytest.raises(error):
      call(function, kind(tmp_path))


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_paths_are_written_to_as_text(tmp_path, kind):
  path = tmp_path / "model.safetensors"
  tensors.save_tensors({"x": jnp.ones(3)}, kind(path))
  found, _ = tensors.load_tensors(kind(path))
  assert found.keys() == {"x"}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_files_may_be_read_by_those_who_may_read_others(tmp_path, umask):
  before = os.umask(umask)
  try:
    tensors.save_tensors({"x": jnp.ones(3)}, tmp_path / "x.safetensors")
  finally:
    os.umask(before)
  mode = (tmp_path / "x.safetensors").stat().st_mode & 0o777
  assert mode == 0o666 & ~umask


def test_addresses_are_no_paths():
  for function in (metrics.read_metrics, frozen.evaluate_frozen, records.load):
    with pytest.raises(ValueError, match="gs://b/f is an address; a local"):
      function("gs://b/f")
