"""Worker processes of a sweep, with a worker that trains nothing."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from bitnet_jax.programs.sweeping import workers
from bitnet_jax.programs.sweeping.plan import Member
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.interrupt import Interrupt, Interrupted

# What a member does is in its config.
STUB = """
import json, os, signal, sys, time
def stop(number, frame):
  open(sys.argv[1] + "/stopped", "a").write(signal.Signals(number).name + " ")
  sys.exit(128 + number)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
for line in sys.stdin:
  task = json.loads(line)
  assert task["origin"]["overrides"] == {"log_every": 1, "seed": 3}
  print("a library says\\n[1]")
  print(json.dumps({"step": 3}), flush=True)
  if task["config"] == {"do": "die"}:
    os.kill(os.getpid(), signal.SIGKILL)
  if task["config"] == {"do": "exit"}:
    sys.exit(5)
  if task["config"] == {"do": "hang"}:
    open(sys.argv[1] + "/ready", "w").close()
    time.sleep(60)
  error = "no luck" if task["config"] == {"do": "fail"} else None
  print(json.dumps({"error": error, "step": 5}), flush=True)
"""


class Progress(dict):
  def step(self, name, step):
    self[name] = step


@pytest.fixture
def pool(monkeypatch, tmp_path):
  """Returns ``run(count, *doings)``: the errors by name, and the progress."""

  def start(self):
    del self
    return subprocess.Popen(
      [sys.executable, "-c", STUB, tmp_path],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      process_group=0,
      text=True,
    )

  monkeypatch.setattr(workers.Workers, "_start", start)

  def run(count, *doings):
    members = [
      Member(
        name=f"{i}-{doing}",
        place="nowhere",
        values={"seed": 3},
        config={"do": doing},
        run_id="",
        total_steps=1,
        is_finished=False,
      )
      for i, doing in enumerate(doings)
    ]
    errors, progress = {}, Progress()
    found = workers.Workers(count, 0)
    found.run(
      members,
      Origin(overrides={"log_every": 1}),
      progress,
      lambda member, error: errors.update({member.name: error}),
    )
    return errors, progress

  return run


def test_members_are_shared_and_the_end_of_a_process_fails_one(pool):
  errors, progress = pool(2, "work", "fail", "die", "exit", "work")
  assert errors == {
    "0-work": None,
    "1-fail": "no luck",
    "2-die": (
      "its worker process was ended by SIGKILL, perhaps for lack of memory"
    ),
    "3-exit": "its worker process ended with status 5",
    "4-work": None,
  }
  assert progress == {
    "0-work": 5,
    "1-fail": 5,
    "2-die": 3,
    "3-exit": 3,
    "4-work": 5,
  }


def test_more_workers_than_members_are_not_started(pool):
  assert pool(9, "work")[0] == {"0-work": None}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_reaches_each_process_once(pool, tmp_path, number):
  def send():
    while not (tmp_path / "ready").exists():
      pass
    os.kill(os.getpid(), number)

  thread = threading.Thread(target=send)
  thread.start()
  with Interrupt() as interrupt:
    interrupt.outcome = "and its members"
    with pytest.raises(Interrupted, match="and its members") as error:
      pool(1, "hang", "work")
  thread.join()
  assert error.value.signal == number
  assert (tmp_path / "stopped").read_text() == f"{number.name} "


def test_worker_starts_with_the_lock_and_its_part_of_a_gpu(monkeypatch):
  started = {}
  monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
  monkeypatch.setattr(
    workers.subprocess, "Popen", lambda *a, **k: started.update(k, command=a)
  )
  workers.Workers(3, 17)._start()
  assert started["pass_fds"] == (17,)
  assert started["env"]["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.30"
  assert json.dumps(started["command"][0][1:]) == json.dumps(
    ["-m", "bitnet_jax.programs.sweeping.worker"]
  )


def test_process_continues_with_the_program_that_it_has():
  class Job:
    def __init__(self, name, key):
      self.name, self.key = name, key

  keys = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "b3": "b", "own": None}
  waiting = workers._Waiting([Job(name, key) for name, key in keys.items()])
  asked = (0, 1, 0, 0, 0, 1)
  names = [waiting.next(number).name for number in asked]
  assert names == ["a1", "b1", "a2", "own", "b2", "b3"]
  assert waiting.next(0) is None
