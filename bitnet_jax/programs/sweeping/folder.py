"""The folder of a sweep: its lock, and ``sweep.json``."""

import contextlib
import dataclasses
import fcntl
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bitnet_jax.files import write_atomically
from bitnet_jax.programs.sweeping import plan
from bitnet_jax.programs.sweeping.grid import Grid
from bitnet_jax.programs.sweeping.plan import Member
from bitnet_jax.train import console
from bitnet_jax.train.folder import bucket, workdir
from bitnet_jax.train.folder.lock import LOCK_FILE
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.folder.workdir import WorkdirError

# Workers of a killed sweep save their checkpoints before they end.
_PATIENCE = 20.0
_POLL = 0.2


@dataclasses.dataclass
class SweepFile:
  """The content of ``sweep.json``, which is written at each change.

  Attributes:
    folder: folder of the sweep.
    config: its config, without the values of the grid.
    grid: the grid of the last start.
    start: how the last start was requested.
    members: by name, the values of all members so far, and the error of those
      that failed.
  """

  folder: pathlib.Path
  config: Mapping[str, Any]
  grid: Mapping[str, Sequence[Any]]
  start: Mapping[str, Any]
  members: dict[str, dict[str, Any]]

  def note(self, name: str, error: str | None) -> None:
    """Records that a member ended, with its error if it failed."""
    self.members[name]["error"] = error
    self.write()

  def write(self) -> None:
    """Writes the file, whole or not at all."""
    content = dataclasses.asdict(self)
    del content["folder"]
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(self.folder / workdir.SWEEP_FILE, text)
    bucket.send(self.folder)


def check(folder: pathlib.Path, config: Mapping[str, Any], grid: Grid) -> None:
  """Checks that a folder is free for a sweep, or holds the same one.

  Raises:
    WorkdirError: for a file, a folder with a run or a frozen model, and a sweep
      of another config, naming the keys that differ.
  """
  if folder.exists() and not folder.is_dir():
    raise WorkdirError(f"--workdir={folder} is not a folder")
  for name, what in (
    (workdir.CONFIG_FILE, "a single run"),
    (workdir.FROZEN_FILE, "a frozen model"),
  ):
    if bucket.has(folder, name):
      raise WorkdirError(
        f"--workdir={folder} holds {what}; choose another folder for the sweep"
      )
  old = _read(folder)
  if old is not None:
    plan.check_base(folder, old["config"], config, {*grid} & {*old["grid"]})


def claim(
  folder: pathlib.Path,
  config: Mapping[str, Any],
  grid: Grid,
  members: Sequence[Member],
  origin: Origin,
) -> SweepFile:
  """Writes ``sweep.json``, with the members of earlier starts, too."""
  old = _read(folder)
  known = {} if old is None else dict(old["members"])
  for member in members:
    known[member.name] = {"values": member.values, "error": None}
  found = SweepFile(folder, config, grid, origin.describe(), known)
  found.write()
  return found


def _read(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns the content of ``sweep.json``; ``None`` if there is none.

  Raises:
    WorkdirError: if it is damaged.
  """
  path = folder / workdir.SWEEP_FILE
  content = workdir.read_object(path)
  if content is None:
    return None
  for key in ("config", "grid", "members"):
    if not isinstance(content.get(key), dict):
      raise WorkdirError(f"{path} is damaged: {key} is no object")
  return content


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[int]:
  """Locks the folder of a sweep; yields the descriptor of the lock.

  Worker processes inherit the descriptor, so that the folder stays locked until
  all of them have ended.

  Raises:
    WorkdirError: if another process is at work there, or it cannot be written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK_FILE).open("a")
  except OSError as error:
    raise WorkdirError(
      f"--workdir={folder} cannot be written: {error}"
    ) from error
  with file:
    deadline, said = time.monotonic() + _PATIENCE, False
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except OSError as error:
        if time.monotonic() > deadline:
          raise WorkdirError(
            f"--workdir={folder} is in use by another process"
          ) from error
        if not said:
          console.say(f"waiting for another process that uses {folder}")
          said = True
        time.sleep(_POLL)
    yield file.fileno()
