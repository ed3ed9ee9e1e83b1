"""Fixtures that write small data sets and build experiments from them."""

import pathlib

import numpy as np
import pytest

from bitnet_jax.train.build import build
from bitnet_jax.train.config.flags import load_config

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
WORDS = "a cat and the dog ran over some hill to see what it was".split()


def load(name, **overrides):
  """Loads a config that asks, with ``__`` for dots, on one device."""
  changes = {k.replace("__", "."): v for k, v in overrides.items()}
  path = str(CONFIGS / f"{name}.py")
  return load_config(path, {"mesh.data": 1} | changes)


@pytest.fixture
def ask(tmp_path):
  """Returns ``ask(name, source, **overrides)``, which builds an experiment."""

  def ask(name, source, folder=None, **overrides):
    return build(load(name, data__source=source, **overrides), folder)

  return ask


@pytest.fixture
def pictures(tmp_path):
  """Returns ``pictures(labels, **splits)``, which writes an npz file."""

  def pictures(labels, shape=(8, 8), name="pictures.npz"):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, own in (("train", labels), ("test", [0, 1])):
      arrays[f"x_{split}"] = rng.integers(0, 256, (len(own), *shape), np.uint8)
      arrays[f"y_{split}"] = np.asarray(own)
    np.savez(tmp_path / name, **arrays)
    return f"file:{tmp_path / name}"

  return pictures


@pytest.fixture
def table(tmp_path):
  """Returns ``table(rows)``, which writes rows of texts as a TSV file."""

  def table(rows, name="rows.tsv"):
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    (tmp_path / name).write_text(text, encoding="utf-8")
    return f"file:{tmp_path / name}"

  return table


def sentences(count, words=8):
  """Returns different sentences."""
  rng = np.random.default_rng(0)
  return [
    f"{' '.join(rng.choice(WORDS, words))} {number}" for number in range(count)
  ]
