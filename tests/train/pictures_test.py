"""Runs on folders of pictures, held in memory or read for each batch."""

import dataclasses
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from bitnet_jax.data import decoded_file
from bitnet_jax.data.batches.ahead import TrainAhead
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from tests.guards_test import experiment_of
from tests.train.conftest import ROOT, final_state

AUGMENTED = {"data.random_crop": 1, "data.random_flip": True}


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
  """A folder of pictures of two sizes and modes, in two classes."""
  root = tmp_path_factory.mktemp("my pets, é")
  rng = np.random.default_rng(0)
  for label, name in enumerate(("cat", "dog")):
    (root / name).mkdir()
    for i in range(30):
      values = rng.integers(128, size=(8 + i % 2, 9, 3)) + 120 * label
      picture = Image.fromarray(values.astype(np.uint8))
      picture.convert("L" if i % 3 else "RGB").save(root / name / f"{i}.png")
  return root


@pytest.fixture
def config_of(make_config, pets):
  """Returns a function from whether pictures are in memory to a config."""

  def make(in_memory, source=pets, **overrides):
    options = {
      "data.source": f"folder:{source}",
      "data.image_size": 8,
      "data.in_memory": in_memory,
      "data.num_classes": None,
      "data.batch_size": 16,
      "data.eval_batch_size": 8,
    }
    options |= AUGMENTED | {
      k.replace("__", "."): overrides[k] for k in overrides
    }
    return make_config(**options)

  return make


def content(experiment):
  """The batches of an experiment, as nested lists."""
  data = experiment.data
  batches = [data.train_batch(step) for step in (0, 1, 2, 3, 50, 51)]
  batches += [
    b for split in ("valid", "test") for b in data.eval_batches(split)
  ]
  data.close()
  return [{k: v.tolist() for k, v in batch.items()} for batch in batches]


@pytest.mark.parametrize("part", [(0, 1), (0, 2), (1, 2)])
def test_batches_do_not_depend_on_where_pictures_are_held(config_of, part):
  held, later = (experiment_of(config_of(m), *part) for m in (True, False))
  assert isinstance(held.data.train_batch(0)["inputs"], np.ndarray)
  assert content(held) == content(later)
  assert held.data.facts == later.data.facts
  assert held.data.facts.class_names == ("cat", "dog")
  assert held.run_id == later.run_id


def test_size_decides_where_pictures_are_held(config_of, monkeypatch):
  from bitnet_jax.data.sources import folder

  def is_held():
    batch_at = build(config_of(None)).data.train_batch
    return not isinstance(batch_at, TrainAhead)

  monkeypatch.setattr(folder, "LARGEST_IN_MEMORY", 60 * 8 * 8 * 3)
  assert is_held()
  monkeypatch.setattr(folder, "LARGEST_IN_MEMORY", 60 * 8 * 8 * 3 - 1)
  assert not is_held()


@pytest.mark.slow
def test_picture_that_vanishes_ends_a_run_and_the_same_command_resumes(
  config_of, pets, tmp_path, monkeypatch
):
  monkeypatch.setattr(decoded_file, "_MOST", 0)  # No room for a copy.
  root = shutil.copytree(pets, tmp_path / "pets")
  config = config_of(False, source=root)
  file = root / "dog" / "7.png"
  content, build_really = file.read_bytes(), runner.build

  def build_and_remove(*args):
    experiment = build_really(*args)
    batch_at = experiment.data.train_batch

    def batch_without_the_file(step):
      if step == 5:
        file.unlink()
      return batch_at(step)

    data = dataclasses.replace(
      experiment.data, train_batch=batch_without_the_file
    )
    return dataclasses.replace(experiment, data=data)

  with monkeypatch.context() as patched:
    patched.setattr(runner, "build", build_and_remove)
    with pytest.raises(
      FileNotFoundError, match=f"there is no picture {file}; "
    ):
      runner.run(config, tmp_path / "run")
  file.write_bytes(content)
  # It goes on with the pictures in memory, which must not matter.
  expected = runner.run(config_of(True), tmp_path / "other")
  result = runner.run(config_of(True, source=root), tmp_path / "run")
  assert result["metrics"] == expected["metrics"]
  states = (final_state(config, tmp_path / name) for name in ("run", "other"))
  jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_example_of_the_page_trains_and_classifies_a_picture(tmp_path):
  page = (ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")
  _, _, example = page.partition("<!-- example: pictures -->")
  code, commands = re.findall(r"```\w+\n(.*?)```", example, re.DOTALL)[:2]
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  run = functools.partial(
    subprocess.run, cwd=tmp_path, env=env, check=True, stdout=subprocess.PIPE
  )
  run([sys.executable, "-c", code])
  for command in commands.splitlines():
    program, *words = shlex.split(command)
    assert program == "bitnet-jax"
    printed = run([sys.executable, "-m", "bitnet_jax", *words]).stdout.decode()
  assert printed.split()[:2] == ["colours/red/0.png", "red"]
