"""A sweep that is killed again and again ends as one that never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from bitnet_jax.train.folder import starts
from tests.train.conftest import ROOT, lines_without_time

OVERRIDES = {
  "total_steps": 120,
  "log_every": 10,
  "eval_every": 40,
  "checkpoint_every": 20,
  "statistics_every": 40,
  "mesh.data": 1,
}
GRIDS = ("quant.recipe=float,b158,b158_median", "seed=0..3")
KILLS = (
  signal.SIGKILL,
  signal.SIGINT,
  signal.SIGKILL,
  signal.SIGTERM,
  signal.SIGINT,
)
# What a sweep says last, after its table.
FINISHED = "experiments/compare.py --figures"
# Of a record, what a clock and the command line decide.
CHANGING = {"wall_time_s", *starts.KEYS}


def start(folder, workers=1):
  """Starts the program as a user would, with optimizations on."""
  values = [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
  return subprocess.Popen(
    [
      sys.executable,
      ROOT / "experiments" / "sweep.py",
      "--config=digits_mlp",
      *values,
      *(f"--grid={grid}" for grid in GRIDS),
      f"--workdir={folder}",
      f"--workers={workers}",
    ],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stderr=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


def finish(folder, workers=1):
  process = start(folder, workers)
  out, errors = process.communicate()
  assert process.returncode == 0, errors
  return out


def finished(folder):
  return len(list(folder.glob("*/result.json")))


def records_of(folder):
  """Returns all records of a sweep without dates, by member."""
  found = {}
  for path in sorted(folder.glob("*/result.json")):
    result = json.loads(path.read_text())
    kept = {key: v for key, v in result.items() if key not in CHANGING}
    found[path.parent.name] = kept, lines_without_time(path.parent)
  return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """An uninterrupted sweep, and what it printed."""
  folder = tmp_path_factory.mktemp("sweep") / "whole"
  return folder, finish(folder)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_sweep_ends_like_an_uninterrupted_one(tmp_path, whole, workers):
  folder = tmp_path / "killed"
  draw = random.Random(workers)
  reached = []
  for number in KILLS:
    before = finished(folder)
    process = start(folder, workers)
    deadline = time.monotonic() + 100
    # Anywhere in the next members: in training, saving or between them.
    while finished(folder) < before + draw.randrange(1, 3):
      assert process.poll() is None, process.communicate()
      assert time.monotonic() < deadline
      time.sleep(0.01)
    time.sleep(draw.uniform(0, 1))
    process.send_signal(number)
    _, errors = process.communicate()
    reached.append(finished(folder))
    # A signal may arrive after the table, while the interpreter ends.
    if process.returncode == 0 or FINISHED in errors:
      break
    assert process.returncode in (-number, 128 + number), errors
    if number != signal.SIGKILL:
      assert "the same command" in errors
      assert "Traceback" not in errors
  print(f"finished members after each kill: {reached}")
  assert reached[-2] < 12
  begun = {path: path.read_bytes() for path in folder.glob("*/result.json")}
  out = finish(folder, workers)
  # What was finished was not run again.
  assert all(path.read_bytes() == text for path, text in begun.items())
  expected, table = whole
  assert records_of(folder) == records_of(expected)
  assert out == table
