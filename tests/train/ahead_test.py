"""Steps compiled for TPUs that are not here."""

import importlib.util
import os
import subprocess
import sys

import pytest

from bitnet_jax.train import ahead, runner
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
