"""Steps compiled for TPUs that are not here."""

import importlib.util
import itertools
import os
import subprocess
import sys
import types

import jax
import pytest

from bitnet_jax.programs import ahead
from bitnet_jax.train import runner
from tests.train.conftest import (
  CONFIGS,
  ROOT,
  command_of,
)

SMALL = {
  "model.hidden": 512,
  "model.num_layers": 2,
  "model.num_heads": 4,
  "model.num_kv_heads": 4,
  "model.mlp_width": 1024,
  "model.dtype": "bfloat16",
  "data.batch_size": 16,
  "data.eval_batch_size": 16,
  "data.seq_len": 128,
  "data.vocab_size": 1024,
  "mesh.data": 1,
  "mesh.fsdp": -1,
}
needs_compiler = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


def compile_tpu(config, *arguments, **overrides):
  """Runs the program; returns its status and what it printed."""
  done = subprocess.run(
    command_of("compile_tpu.py", config, SMALL | overrides, *arguments),
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    capture_output=True,
    text=True,
    check=False,
  )
  return done.returncode, done.stdout + done.stderr


def load(name, **overrides):
  changes = {key.replace("__", "."): value for key, value in overrides.items()}
  return runner.load_config(str(CONFIGS / name), changes)


def test_language_models_need_no_corpus():
  config = load("bitnet_decoder.py:99M")
  found = ahead.without_corpus(config)
  assert found["data"]["source"] == "embedded:pydoc"
  assert found["data"]["vocab_size"] == config["data"]["vocab_size"]
  assert config["data"]["source"] == "tfds:c4/en"
  with pytest.raises(ValueError, match=r"data.vocab_size is None; give the"):
    ahead.without_corpus(load("pydoc_decoder.py", data__vocab_size=None))
  images = load("digits_mlp.py")
  assert ahead.without_corpus(images) == images


def test_explanation_names_sizes_and_buffers(tmp_path):
  (tmp_path / "m.after-memory-usage-report.txt").write_text(
    "Memory Space: default (color=0)\n"
    "   16.00GiB( 61%);   16.00GiB;   5374836736;      5; 5xf32[16,2048]\n"
    "   17.95GiB( 68%);    1.95GiB;  22616981504;      4; f32[8,32000]\n"
  )
  message = "total memory (23.32G) exceeds available HBM (15.75G)."
  text = ahead._explain(message, ahead._largest_buffers(tmp_path))
  first, second, third = text.splitlines()
  assert "needs 23.32G of memory, but a chip has 15.75G" in first
  assert second.split() == ["16.00GiB", "5xf32[16,2048]"]
  assert third.split() == ["1.95GiB", "f32[8,32000]"]


@pytest.mark.parametrize(
  ("name", "slices", "options"),
  [
    ("v4:2x2x1", 1, {"chip_config_name": "megacore"}),
    ("v4:2x2x2", 2, {"chip_config_name": "megacore", "num_slices": 2}),
    ("v5e:2x2", 1, {}),
    ("v5p:2x2x1", 2, {"num_slices": 2}),
  ],
)
def test_cores_of_a_chip_are_one_device(monkeypatch, name, slices, options):
  def get(topology, platform, **more):
    assert (topology, platform) == (name, "tpu")
    return types.SimpleNamespace(devices=more)

  monkeypatch.setattr(ahead.topologies, "get_topology_desc", get)
  assert ahead.get_topology(name, slices=slices) == options


def test_refusals_of_the_compiler_are_named(monkeypatch):
  def refuse(*_):
    raise jax.errors.JaxRuntimeError("INTERNAL: no layout\n" + "line\n" * 900)

  monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
  config = load("digits_mlp.py")
  message = r"refuses the step for the mesh .*'data': 1.*INTERNAL: no layout"
  with pytest.raises(ahead.Refused, match=message) as caught:
    ahead.compile_step(config, jax.devices()[:1])
  assert len(str(caught.value)) < 700
  changes = itertools.islice(ahead.search(config, jax.devices()[:1]), 2)
  problems = [problem for _, _, problem in changes]
  assert len(problems) == 2
  assert all("no layout" in problem for problem in problems)


@pytest.mark.parametrize("error", [AssertionError, NotImplementedError])
def test_meshes_that_cannot_be_laid_are_named(monkeypatch, error):
  def lay(*_, **__):
    raise error("one device per chip")

  monkeypatch.setattr(jax, "make_mesh", lay)
  with pytest.raises(ahead.Refused, match="no mesh of these chips: one device"):
    ahead.compile_step(load("digits_mlp.py"), jax.devices()[:1])


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
  "arguments", [["--topology=v4:2x2x1"], ["--topology=v5e:2x2", "--slices=2"]]
)
def test_topologies_of_the_table_compile(arguments):
  more = {"mesh.data": 2} if len(arguments) > 1 else {}
  code, text = compile_tpu("pydoc_decoder.py", *arguments, **more)
  assert code == 0, text


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("topology", ["v5e:2x2", "v6e:2x2"])
def test_ternary_weights_take_an_eighth_of_the_bytes(topology):
  gathered = {}
  for recipe in ("b158", "float"):
    code, text = compile_tpu(
      "pydoc_decoder.py",
      f"--topology={topology}",
      **{"quant.recipe": recipe, "model.remat": "full"},
    )
    assert code == 0, text
    assert "it fits" in text
    found = {
      line.split()[1]: float(line.split()[2])
      for line in text.splitlines()
      if line.strip().startswith("all-gather")
    }
    gathered[recipe] = found
  weights = 2 * (4 * 512 * 512 + 3 * 512 * 1024)
  assert gathered["b158"]["u8"] == pytest.approx(weights / 4 / 2**20, abs=1e-3)
  assert "u8" not in gathered["float"]
  both_ways = 2 * 2 * weights / 2**20  # bfloat16, forward and backward.
  assert gathered["b158"]["u8"] <= 0.13 * both_ways


@pytest.mark.slow
@needs_compiler
def test_step_that_does_not_fit_names_its_buffers():
  code, text = compile_tpu(
    "pydoc_decoder.py",
    "--topology=v5e:2x2",
    **{"data.batch_size": 65536, "model.remat": "none"},
  )
  assert code == 1
  assert "of memory, but a chip has" in text
  assert "GiB" in text.splitlines()[1]


@pytest.mark.slow
@needs_compiler
def test_unknown_topology_is_named():
  code, text = compile_tpu("pydoc_decoder.py", "--topology=v9z:1x1")
  assert code != 0
  assert "topology 'v9z:1x1' cannot be had" in text
