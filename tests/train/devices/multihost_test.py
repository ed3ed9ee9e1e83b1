"""Several processes train as one does."""

import json
import os
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from bitnet_jax.train.devices import multihost
from bitnet_jax.train.folder.metrics import read_metrics
from tests.train.conftest import (
  ROOT,
  command_of,
  lines_without_time,
)

DEVICES = 4  # Of all processes together.
OVERRIDES = {
  "total_steps": 20,
  "log_every": 1,
  "eval_every": 10,
  "checkpoint_every": 10,
  "data.eval_batch_size": 96,
  "steps_per_dispatch": 1,
  "quant.recipe": "float",
}
PATIENCE = 200  # Seconds, beyond which processes hang.


def free_port():
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    return listener.getsockname()[1]


def start(folder, count, of_process=None, **changes):
  """Starts processes; ``of_process(i)`` gives overrides of a single one."""
  port, processes = free_port(), []
  for i in range(count):
    overrides = OVERRIDES | changes | (of_process(i) if of_process else {})
    arguments = [f"--workdir={folder}"]
    if count > 1:
      arguments += [
        "--multihost",
        f"--coordinator=localhost:{port}",
        f"--num_processes={count}",
        f"--process_id={i}",
      ]
    flags = f"--xla_force_host_platform_device_count={DEVICES // count}"
    processes.append(
      subprocess.Popen(
        command_of("train.py", "digits_mlp.py", overrides, *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  return processes


def end(processes, code=0):
  """Waits for all, and returns what they said."""
  said = [process.communicate(timeout=PATIENCE)[1] for process in processes]
  codes = [process.returncode for process in processes]
  assert codes == [code] * len(processes), "\n\n".join(said)
  return said


def losses(folder):
  found = [line.get("train/loss") for line in read_metrics(folder)]
  return np.array([loss for loss in found if loss is not None])


def reach(folder, step, processes):
  """Waits until a step is in the metrics of a run."""
  began = time.monotonic()
  while time.monotonic() - began < PATIENCE:
    for process in processes:
      assert process.poll() is None, process.communicate()[1]
    if any(line["step"] >= step for line in read_metrics(folder)):
      return
    time.sleep(0.1)
  pytest.fail(f"step {step} was not reached")


def test_single_process_speaks_for_itself():
  assert multihost.is_primary()
  assert multihost.gather_texts("é") == ["é"]
  assert multihost.on_primary(lambda: 3) == 3
  assert multihost.primary_first(lambda: 3) == 3
  multihost.check_agreement({"config": 1})
  multihost.barrier("nothing")
  with pytest.raises(ValueError, match="--process_id must be given too"):
    multihost.initialize(coordinator="localhost:1", num_processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_train_as_one_does(tmp_path, count):
  end(start(tmp_path / "one", 1))
  end(start(tmp_path / "many", count))
  expected, actual = losses(tmp_path / "one"), losses(tmp_path / "many")
  assert len(actual) == OVERRIDES["total_steps"]
  np.testing.assert_allclose(actual[0], expected[0], 1e-6)
  np.testing.assert_allclose(actual, expected, 1e-4)
  one, many = (
    json.loads((tmp_path / name / "result.json").read_text())["metrics"]
    for name in ("one", "many")
  )
  assert one.keys() == many.keys()
  assert abs(one["test/loss"] - many["test/loss"]) < 1e-4


@pytest.mark.slow
def test_ternary_step_is_that_of_one_process(tmp_path):
  changes = {"quant.recipe": "b158", "mesh.data": 1, "mesh.fsdp": 4}
  end(start(tmp_path / "one", 1, **changes))
  end(start(tmp_path / "two", 2, **changes))
  expected, actual = losses(tmp_path / "one"), losses(tmp_path / "two")
  np.testing.assert_allclose(actual[0], expected[0], 1e-4)


@pytest.mark.slow
def test_stopped_run_ends_bit_for_bit_as_one_that_never_was(tmp_path):
  changes = {"quant.recipe": "b158", "total_steps": 300}
  end(start(tmp_path / "whole", 2, **changes))
  stopped = tmp_path / "stopped"
  processes = start(stopped, 2, **changes)
  reach(stopped, 20, processes)
  processes[1].send_signal(signal.SIGTERM)  # Any of them may be told.
  said = end(processes, 128 + signal.SIGTERM)
  assert all("stopped by SIGTERM at step" in text for text in said)
  assert len(losses(stopped)) < 300
  end(start(stopped, 2, **changes))
  assert lines_without_time(stopped) == lines_without_time(tmp_path / "whole")


@pytest.mark.slow
def test_lost_process_ends_the_others(tmp_path):
  changes = {"total_steps": 100_000, "checkpoint_every": 50}
  processes = start(tmp_path, 2, **changes)
  reach(tmp_path, 60, processes)
  processes[1].kill()
  processes[1].communicate()
  began = time.monotonic()
  said = processes[0].communicate(timeout=PATIENCE)[1]
  assert time.monotonic() - began < 60
  assert processes[0].returncode != 0
  assert "stopped sending heartbeats):\n1\n" in said
  done = max(line["step"] for line in read_metrics(tmp_path))
  processes = start(tmp_path, 2, **changes)
  reach(tmp_path, done + 10, processes)
  processes[0].send_signal(signal.SIGTERM)
  end(processes, 128 + signal.SIGTERM)
  steps = [line["step"] for line in read_metrics(tmp_path)]
  assert steps == [*range(1, len(steps) + 1)]


@pytest.mark.slow
def test_processes_that_differ_are_refused(tmp_path):
  processes = start(
    tmp_path, 2, lambda i: {"optim.learning_rate": 1e-3 * (i + 1)}
  )
  for text in end(processes, 1):
    assert (
      "process 1 differs from process 0: config.optim.learning_rate" in text
    )
  assert not (tmp_path / "config.json").exists()
