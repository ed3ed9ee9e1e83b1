"""Starts workers, and tells what ended them."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[2]
OUTCOMES = ("read", "refused", "no name", "raw error", "hang", "crash")
_SHORT = {"names no file": "no name"}


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of a mutation.

  Attributes:
    reader: its name.
    seed: of the mutation.
    outcome: one of ``OUTCOMES``.
    message: of the error, or what the process said at its end.
  """

  reader: str
  seed: int
  outcome: str
  message: str

  @property
  def is_fault(self) -> bool:
    """Whether the reader is at fault."""
    return self.outcome not in ("read", "refused")


def fuzz(names: Sequence[str], first: int, count: int) -> list[Outcome]:
  """Tries readers with the mutations of ``count`` seeds from ``first`` on."""
  found: list[Outcome] = []
  while len(found) < count * len(names):
    found += _work(names, first, count, len(found))
  return found


def _work(names, first, count, done):
  """Runs a worker to its end, and returns what it tried."""
  environment = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "RUST_BACKTRACE": "0",
  }
  numbers = map(str, (first, count, done))
  ended = subprocess.run(
    [sys.executable, "-m", "tests.fuzz.worker", *numbers, *names],
    cwd=ROOT,
    env=environment,
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    errors="replace",
  )
  lines = [json.loads(line) for line in ended.stdout.splitlines()]
  if not lines:
    raise RuntimeError(f"files are not read when whole: {ended.stderr[-3000:]}")
  found = [
    Outcome(name, seed, _SHORT.get(outcome, outcome), message)
    for name, seed, outcome, message in (x for x in lines if len(x) == 4)
  ]
  if len(lines[-1]) == 2:
    hung = ended.returncode == -signal.SIGALRM
    said = f"{ended.returncode}: {ended.stderr[-1500:]}"
    found.append(Outcome(*lines[-1], "hang" if hung else "crash", said))
  return found
