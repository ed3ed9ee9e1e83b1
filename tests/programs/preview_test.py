"""A run before it starts: its batch is shown, and nothing is written."""

import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from bitnet_jax.programs import preview
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.tasks.facts import DataFacts
from tests.train.conftest import CONFIGS

NAMED = DataFacts(num_classes=2, class_names=("cat $x$", "dog"))


def experiment_of(name, **overrides):
  config = runner.load_config(f"{CONFIGS / name}.py", overrides)
  return build(config)


def test_pictures_are_drawn_with_the_names_of_their_classes():
  inputs = np.zeros((9, 4, 4, 3), np.uint8)
  inputs[:, :2] = 255
  batch = {"inputs": inputs, "labels": np.arange(9, dtype=np.int32) % 2}
  (line,) = preview.show_batch(batch, NAMED, None)
  path, labels = re.fullmatch(r"(\S+\.png) \((.*)\)", line).groups()
  assert labels.split(", ")[:2] == ["cat $x$", "dog"]
  with Image.open(path) as image:
    assert len(image.getcolors(1 << 24)) >= 2
    assert image.width > image.height
  pathlib.Path(path).unlink()


def test_step_of_a_run_is_compiled_and_its_batch_is_shown(tmp_path):
  experiment = experiment_of("digits_mlp")
  text = preview.preview(experiment, f"{tmp_path / 'run'}")
  assert not [*tmp_path.iterdir()]
  assert "more for temporary values of a step" in text
  path = pathlib.Path(re.search(r"^batch 0 +(\S+)", text, re.MULTILINE)[1])
  assert path.stat().st_size
  path.unlink()


def test_texts_are_shown_as_texts():
  experiment = experiment_of(
    "pydoc_decoder", **{"data.tokenizer": "bytes", "data.vocab_size": None}
  )
  data = experiment.data
  batch = data.train_batch(0)
  lines = [*preview.show_batch(batch, data.facts, data.tokenizer)]
  shown = lines[lines.index("tokens int32[16, 128]") + 1].strip()
  assert shown == repr(data.tokenizer.decode(batch["tokens"][0]))
  assert sum("\\n" in line or " the " in line for line in lines) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["karate_gnn", "docstrings_mlp"])
def test_other_batches_are_shown_by_shape_and_label(name):
  data = experiment_of(name).data
  lines = [*preview.show_batch(data.train_batch(0), data.facts, data.tokenizer)]
  labels = next(i for i, line in enumerate(lines) if line.startswith("labels"))
  assert lines[labels + 1].strip()
  assert len(lines) < 30
