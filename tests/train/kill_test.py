"""A run that is killed again and again ends as one that never was."""

import os
import random
import signal
import subprocess
import time

import pytest

from bitnet_jax.train import runner
from tests.train.conftest import (
  CONFIGS,
  ROOT,
  command_of,
  final_state,
  lines_without_time,
)

OVERRIDES = {
  "total_steps": 400,
  "log_every": 10,
  "eval_every": 50,
  "checkpoint_every": 25,
  "statistics_every": 20,
  "mesh.data": 1,
}
KILLS = 10


def start(folder):
  """Starts the program as a user would, with optimizations on.

  It compiles each time, so that there is time to interrupt it.
  """
  env = {"PYTHONPATH": str(ROOT), "JAX_ENABLE_COMPILATION_CACHE": "false"}
  return subprocess.Popen(
    command_of("train.py", "digits_mlp.py", OVERRIDES, f"--workdir={folder}"),
    cwd=ROOT,
    env={**os.environ, **env},
    stderr=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    text=True,
  )


def finish(folder):
  process = start(folder)
  _, errors = process.communicate()
  assert process.returncode == 0, errors


def is_saving(checkpoints):
  try:
    return any(checkpoints.glob("*/*orbax-checkpoint-tmp*"))
  except FileNotFoundError:  # An old checkpoint went away meanwhile.
    return False


def kill(folder, *, inside_a_save, delay):
  """Kills a run; returns whether orbax was writing at that moment."""
  process = start(folder)
  checkpoints = folder / "checkpoints"
  while process.poll() is None and not (folder / "config.json").exists():
    time.sleep(0.01)
  deadline = time.monotonic() + delay
  caught = False
  while process.poll() is None and not caught:
    if inside_a_save:
      caught = is_saving(checkpoints) and time.monotonic() > deadline
    else:
      caught = time.monotonic() > deadline
  process.kill()
  process.communicate()
  return inside_a_save and caught


@pytest.mark.slow
def test_killed_runs_end_like_an_uninterrupted_one(tmp_path):
  finish(tmp_path / "whole")
  config = runner.load_config(str(CONFIGS / "digits_mlp.py"), OVERRIDES)
  config["total_epochs"] = None
  expected = final_state(config, tmp_path / "whole")
  draw = random.Random(0)
  interrupted = inside = 0
  for i in range(KILLS):
    folder = tmp_path / f"killed-{i}"
    # From the start of the run to its end takes a few seconds, most of them
    # for compilation.
    inside += kill(
      folder, inside_a_save=i % 2 == 0, delay=draw.uniform(0.5, 4.0)
    )
    interrupted += not (folder / "result.json").exists()
    finish(folder)
    assert lines_without_time(folder) == lines_without_time(tmp_path / "whole")
    compare(final_state(config, folder), expected)
  print(f"{interrupted} of {KILLS} runs were cut, {inside} inside a save")
  assert interrupted >= KILLS // 2
  assert inside >= 2


def compare(actual, expected):
  import jax
  import numpy as np

  jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_says_how_to_go_on(tmp_path, number):
  process = start(tmp_path / "run")
  metrics = tmp_path / "run" / "metrics.jsonl"
  while process.poll() is None and not (
    metrics.exists() and metrics.stat().st_size
  ):
    time.sleep(0.01)
  process.send_signal(number)
  _, errors = process.communicate()
  assert process.returncode == 128 + number
  assert f"stopped by {number.name} at step" in errors
  assert "the same command resumes" in errors
  assert "Traceback" not in errors
  finish(tmp_path / "run")
