"""Finds run folders, and reads what is known of a run from its folder alone."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bitnet_jax.files import PathLike, local_path
from bitnet_jax.train.folder import bucket, seals, starts, workdir
from bitnet_jax.train.folder.lock import LOCK_FILE
from bitnet_jax.train.folder.metrics import METRICS_FILE, read_metrics

# finished: it has its result; running: a process holds its lock; stopped:
# neither; damaged: a file of it cannot be read.
STATES = ("finished", "running", "stopped", "damaged")
_DEEPEST = 4  # Folders below the one that is searched.
_FILES = (workdir.CONFIG_FILE, workdir.RESULT_FILE, METRICS_FILE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundRun:
  """A run as its folder shows it.

  Attributes:
    folder: its workdir.
    state: one of ``STATES``.
    config: the resolved config, with the keys that came later; empty if it
      cannot be read.
    fingerprint: of its data, see ``records.identity``.
    result: the content of ``result.json``; empty if it is not finished.
    step: the last step, or of an unfinished run the newest checkpoint.
    starts: its starts, see ``starts.read``.
    damage: what is wrong with a damaged one; else "".
  """

  folder: pathlib.Path
  state: str
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  fingerprint: str = ""
  result: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  step: int = 0
  starts: Sequence[Mapping[str, Any]] = ()
  damage: str = ""


def is_run(folder: PathLike) -> bool:
  """Whether a folder holds a run, started at least; not a frozen model."""
  folder = bucket.place(folder)
  if (folder / workdir.FROZEN_FILE).exists():
    return False
  if not any((folder / name).is_file() for name in _FILES):
    return False
  with contextlib.suppress(workdir.WorkdirError):
    return "task" in workdir.read_config(folder)[0]
  return True  # It is damaged.


def find(root: PathLike) -> list[pathlib.Path]:
  """Returns the run folders below a folder, or the folder itself, by name.

  Raises:
    FileNotFoundError: if there is no such folder.
  """
  root = local_path(root)
  if not root.is_dir():
    raise FileNotFoundError(f"{root} is no folder; name one that holds runs")
  return list(_walk(root, 0))


def _walk(folder: pathlib.Path, depth: int) -> Iterator[pathlib.Path]:
  if is_run(folder):
    yield folder
    return
  if depth == _DEEPEST:
    return
  try:
    inside = sorted(folder.iterdir())
  except OSError:  # Of another user.
    return
  for path in inside:
    if path.is_dir() and not path.name.startswith("."):
      yield from _walk(path, depth + 1)


def read(folder: PathLike) -> FoundRun:
  """Returns what is known of the run in a folder; damage raises no error."""
  folder = bucket.place(folder)
  try:
    config, fingerprint = workdir.read_run(folder)
    result = workdir.read_result(folder)
    run_id = workdir.read_run_id(folder)
    checkpoints = seals.steps(bucket.checkpoint_folder(folder))
  except (OSError, ValueError) as error:
    return FoundRun(folder=folder, state="damaged", damage=f"{error}")
  if result is not None and result["run_id"] == run_id:
    state, step = "finished", result["step"]
  else:
    result, step = None, max(checkpoints, default=0)
    state = "running" if _is_locked(folder) else "stopped"
  return FoundRun(
    folder=folder,
    state=state,
    config=config,
    fingerprint=fingerprint,
    result=result or {},
    step=step,
    starts=starts.read(folder),
  )


def _is_locked(folder: pathlib.Path) -> bool:
  """Whether a process of this machine holds the lock of a run folder."""
  try:
    descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
  except OSError:
    return False
  try:
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except OSError:
    return True
  finally:
    os.close(descriptor)
  return False


def best_value(run: FoundRun) -> float | None:
  """Returns the best value of ``checkpoint.metric`` so far, if there is one.

  Of a finished run it is that of its best checkpoint, or of its last step.
  """
  options = run.config["checkpoint"]
  name = options["metric"]
  if run.result:
    kept = run.result.get("best") or run.result
    return kept["metrics"].get(name)
  values = [line[name] for line in read_metrics(run.folder) if name in line]
  choose = max if options["mode"] == "max" else min
  return choose(values, default=None)


def seconds_of(folder: pathlib.Path) -> float:
  """Returns when a run last wrote, in seconds since 1970."""
  paths = [folder / name for name in _FILES]
  return max((p.stat().st_mtime for p in paths if p.exists()), default=0.0)


def bytes_of(folder: pathlib.Path) -> int:
  """Returns the bytes of all files in a folder."""
  total = 0
  for path, _, names in os.walk(folder):
    for name in names:
      with contextlib.suppress(OSError):  # It went away meanwhile.
        total += os.lstat(os.path.join(path, name)).st_size
  return total
