"""Times functions in another Python process, with packages of its own."""

import json
import os
import pathlib
import subprocess
import time
from typing import Any

from benchmarks.timing import Run
from bitnet_jax.train.devices.allocation import tunables

# Seconds for which PyTorch's threads spin for more work; spinning slows down
# the function that is timed next.
SPINNING = 0.3


class Worker:
  """A process that times functions on request.

  Attributes:
    version: of the package that it times.
  """

  def __init__(
    self, python: str, script: str, threads: int, *, keeps_memory: bool
  ):
    """Starts the process.

    Args:
      python: the interpreter.
      script: a program in this folder, such as "torch_worker.py".
      threads: number of threads that compute.
      keeps_memory: whether freed memory is retained, see ``keep_memory``.

    Raises:
      RuntimeError: if it does not start, with its output.
    """
    kept = {"GLIBC_TUNABLES": tunables()} if keeps_memory else {}
    path = pathlib.Path(__file__).with_name(script)
    self._process = subprocess.Popen(
      [python, str(path), str(threads)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**kept, **os.environ},
    )
    self.version = self._answer()["version"]

  def make(self, **function: Any) -> Run:
    """Builds a function, see the script, and returns a timer of it."""
    number = self._ask({"make": function})["number"]

    def run(calls: int) -> float:
      seconds = self._ask({"run": number, "calls": calls})["seconds"]
      time.sleep(SPINNING)
      return seconds

    return run

  def _ask(self, request):
    assert self._process.stdin is not None
    self._process.stdin.write(json.dumps(request) + "\n")
    self._process.stdin.flush()
    return self._answer()

  def _answer(self):
    assert self._process.stdout is not None
    assert self._process.stderr is not None
    line = self._process.stdout.readline()
    if not line:
      raise RuntimeError(
        f"{self._process.args} ended: {self._process.stderr.read()[-2000:]}"
      )
    return json.loads(line)

  def close(self) -> None:
    """Ends the process."""
    assert self._process.stdin is not None
    self._process.stdin.close()
    self._process.wait()
