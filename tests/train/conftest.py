"""A small experiment, and helpers to run it and to read what it left."""

import pathlib
import sys

import jax
import numpy as np
import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.devices.mesh import place_batch
from bitnet_jax.train.folder.checkpoint import Checkpoints
from bitnet_jax.train.folder.metrics import read_metrics
from bitnet_jax.train.loop import place_strength

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = ROOT / "configs"

SMALL = {
  "total_steps": 12,
  "total_epochs": None,
  "log_every": 1,
  "eval_every": 4,
  "checkpoint_every": 4,
  "statistics_every": 3,
  "steps_per_dispatch": 1,
  "data.batch_size": 32,
  "data.eval_batch_size": 100,
  "model.width": 16,
  "model.depth": 1,
  "optim.learning_rate": 1e-2,
  "mesh.data": 1,
}


def command_of(program, config, overrides, *arguments):
  """Returns the words that start a program of ``experiments/``."""
  values = [f"--config.{key}={value}" for key, value in overrides.items()]
  path = ROOT / "experiments" / program
  words = [sys.executable, path, f"--config={CONFIGS / config}", *arguments]
  return [str(word) for word in (*words, *values)]


@pytest.fixture(scope="session")
def make_config():
  """Returns ``make(**overrides)``, the small config with ``__`` for dots."""

  def make(config_name="digits_mlp", **overrides):
    changes = {k.replace("__", "."): v for k, v in overrides.items()}
    small = SMALL
    if config_name != "digits_mlp":
      small = {k: v for k, v in SMALL.items() if not k.startswith("model.")}
    path = CONFIGS / f"{config_name}.py"
    return runner.load_config(str(path), small | changes)

  return make


@pytest.fixture
def run(make_config, tmp_path):
  """Returns ``run(folder_name, **overrides)``, which gives (result, folder)."""

  def run(folder_name="run", **overrides):
    folder = tmp_path / folder_name
    return runner.run(make_config(**overrides), folder), folder

  return run


def first_losses(config, steps=6):
  """Returns the losses of the first steps, without all that runs beside."""
  return losses_of(build(config), steps)


def losses_of(experiment, steps):
  """Returns the losses of the first steps of an experiment."""
  strength = experiment.settings.quant.phase_in.strength
  losses = []
  with experiment.activate():
    state, step_fn = experiment.init(), experiment.train_step()
    batch_at, key = experiment.data.train_batch, experiment.train_key()
    for step in range(steps):
      batch = place_batch(batch_at(step), experiment.mesh)
      placed = place_strength(strength(step), experiment.mesh)
      state, metrics = step_fn(state, batch, key, placed)
      losses.append(float(metrics["loss"]))
  return losses


def final_state(config, folder):
  """Returns the state of the last checkpoint as NumPy arrays."""
  experiment = build(config)
  with experiment.activate():
    checkpoints = Checkpoints(
      folder / "checkpoints", experiment.settings.checkpoint
    )
    step = checkpoints.steps()[-1]
    state = checkpoints.restore(step, experiment.init())
  return jax.tree.map(np.asarray, state)


def lines_without_time(folder):
  """Returns the lines of ``metrics.jsonl`` without what a clock decides."""
  return [
    {
      name: value
      for name, value in line.items()
      if name != "time" and not name.startswith("speed/")
    }
    for line in read_metrics(folder)
  ]
