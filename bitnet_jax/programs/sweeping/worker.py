"""A worker process of a sweep, started as a module.

Reads members as JSON lines from standard input, trains them, and writes JSON
lines to standard output: steps that are reached, and at last the error or null.
It stops as after SIGTERM, with a checkpoint, when its input ends.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import base64
import json
import os
import pickle
import signal
import sys
import threading
import time
from typing import Any

from bitnet_jax.programs.sweeping import blocks, members
from bitnet_jax.train.folder.starts import Origin

_EVERY = 0.2  # seconds between steps that are told


def main(argv):
  """Trains members until the input ends."""
  del argv
  # What libraries print must not mix with the lines of this program.
  answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
  os.dup2(2, 1)
  members.warn_once()
  trainer = blocks.Trainer()
  lines = _Lines()
  threading.Thread(target=lines.read, daemon=True).start()
  while (line := lines.next()) is not None:
    task = json.loads(line)
    teller = _Teller(answers)
    error = None
    if "block" in task:
      block = blocks.Block.parse(task["block"])
      for outcome in trainer.train(block, teller.tell_of):
        answers.write(json.dumps({"outcome": packed(outcome)}) + "\n")
    else:
      error = members.attempt(
        task["config"],
        task["place"],
        Origin(**task["origin"]),
        teller.tell,
        trainer.sharing.make if task["shares"] else None,
      )
    lines.rest()
    teller.end(error)


def parse(line: str) -> dict[str, Any]:
  """Returns an answer of a worker; nothing for what a library printed."""
  try:
    answer = json.loads(line)
  except ValueError:
    return {}
  return answer if isinstance(answer, dict) else {}


def packed(outcome: blocks.Outcome) -> str:
  """Returns an outcome, with its arrays, as text."""
  return base64.b64encode(pickle.dumps(outcome)).decode()


def unpacked(text: str) -> blocks.Outcome:
  """Returns the outcome in what a worker of this package wrote."""
  return pickle.loads(base64.b64decode(text))


class _Teller:
  """Writes steps, but not too often, and the end of a member."""

  def __init__(self, answers):
    self._answers, self._last = answers, 0.0
    self._step: int | None = None
    self._last_of: dict[str, float] = {}

  def tell(self, step: int) -> None:
    """Writes a step, at most a few times a second."""
    now, self._step = time.monotonic(), step
    if now - self._last > _EVERY:
      self._last = now
      self._answers.write(json.dumps({"step": step}) + "\n")

  def tell_of(self, name: str, step: int) -> None:
    """Writes the step of a case, at most a few times a second for each."""
    now = time.monotonic()
    if now - self._last_of.get(name, 0.0) > _EVERY:
      self._last_of[name] = now
      self._answers.write(json.dumps({"name": name, "step": step}) + "\n")

  def end(self, error: str | None) -> None:
    """Writes the error, or that there is none, and the last step, if any."""
    last = {} if self._step is None else {"step": self._step}
    self._answers.write(json.dumps({**last, "error": error}) + "\n")


class _Lines:
  """Lines of standard input, read by a thread that sees its end at once."""

  def __init__(self):
    self._ready = threading.Condition()
    self._lines: list[str] = []
    self._is_idle, self._ended = True, False

  def read(self) -> None:
    """Reads until the input ends, which stops a member at work."""
    for line in sys.stdin:
      with self._ready:
        self._lines.append(line)
        self._ready.notify()
    with self._ready:
      self._ended = True
      self._ready.notify()
      if self._is_idle:
        return
    os.kill(os.getpid(), signal.SIGTERM)

  def rest(self) -> None:
    """Says that no member is at work, which the end of the input would stop."""
    with self._ready:
      self._is_idle = True

  def next(self) -> str | None:
    """Returns the next line, once there is one; ``None`` at the end."""
    with self._ready:
      self._ready.wait_for(lambda: self._lines or self._ended)
      if not self._lines:
        return None
      self._is_idle = False
      return self._lines.pop(0)


if __name__ == "__main__":
  program.run(main)
