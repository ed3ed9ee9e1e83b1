"""Runs a sweep: checks all members, trains those that are not finished."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bitnet_jax import choices, error_log
from bitnet_jax.data.sources import registry
from bitnet_jax.files import PathLike
from bitnet_jax.programs.sweeping import folder as folders
from bitnet_jax.programs.sweeping import grid as grids
from bitnet_jax.programs.sweeping import members, plan
from bitnet_jax.programs.sweeping.blocks import PROGRAMS
from bitnet_jax.programs.sweeping.plan import Member
from bitnet_jax.programs.sweeping.progress import Progress
from bitnet_jax.programs.sweeping.workers import Workers
from bitnet_jax.train import console
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.folder import bucket
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.interrupt import Interrupt, Interrupted
from bitnet_jax.train.sweep.shared import Sharing

_AT_WORK = "with its members, which saved checkpoints; the same command resumes"
_BETWEEN = "between two members; the same command resumes the sweep"


@dataclasses.dataclass(frozen=True)
class Swept:
  """What a sweep came to.

  Attributes:
    members: its members, in the order of the grid.
    failed: the errors of the members that failed, by name.
  """

  members: Sequence[Member]
  failed: Mapping[str, str]

  @property
  def finished(self) -> list[str]:
    """Folders of the members that are finished, in the order of the grid."""
    return [m.place for m in self.members if m.name not in self.failed]


def sweep(
  config: Any,
  grid: grids.Grid,
  root: PathLike,
  *,
  workers: int = 1,
  program: str = "auto",
  origin: Origin | None = None,
) -> Swept:
  """Trains a run for each combination of values, or what is left of them.

  Args:
    config: a ``ConfigDict`` with every key that no grid has.
    grid: values by dotted key, see ``grid.parse``.
    root: folder of the sweep; each member has a folder in it.
    workers: number of processes; 1 trains in this one.
    program: a name in ``PROGRAMS``: "auto" has members that differ in numbers
      only share data and programs, one after another.
    origin: how the sweep was requested, for the records of its runs.

  Raises:
    ValueError: for a mistake in a member, before any of them trains.
    WorkdirError: for a folder that holds something else.
    Interrupted: after SIGINT or SIGTERM; the same call resumes.
  """
  if workers < 1:
    raise ValueError(f"--workers={workers}: it must be at least 1")
  choices.check(program, PROGRAMS, key="--program")
  keep_compiled()
  origin = origin or Origin()
  base = json.loads(json.dumps(config.to_dict()))
  # In this process, a source is read once. Workers read it themselves.
  kept = contextlib.nullcontext() if workers > 1 else registry.keeping()
  with Interrupt() as interrupt, kept:
    interrupt.outcome = "before the first member; nothing is trained yet"
    folder = bucket.place(root)
    folders.check(folder, base, grid)
    found = plan.plan(config, grid, root, lambda name: interrupt.check())
    if program == "each":
      found = [dataclasses.replace(member, key=None) for member in found]
    interrupt.check()
    error_log.keep_in(folder)
    with folders.locked(folder) as lock:
      record = folders.claim(folder, base, grid, found, origin)
      interrupt.outcome = _BETWEEN
      pool = None
      if workers > 1:
        pool = Workers(workers, lock)
        interrupt.outcome = _AT_WORK
      failed = _run(found, record, origin, pool, interrupt)
  return Swept(found, failed)


def _run(
  found: Sequence[Member],
  record: folders.SweepFile,
  origin: Origin,
  pool: Workers | None,
  interrupt: Interrupt,
) -> dict[str, str]:
  """Runs the members that are not finished; returns the errors by name."""
  left = [member for member in found if not member.is_finished]
  if len(left) < len(found):
    done = len(found) - len(left)
    console.say(f"{done} of {len(found)} members are finished already")
  left = by_program(left)
  if left:
    console.say(describe_programs(left))
  failed: dict[str, str] = {}
  progress = Progress(found)

  def on_end(member: Member, error: str | None) -> None:
    progress.end(member.name)
    record.note(member.name, error)
    if error is not None:
      failed[member.name] = error
      console.say(f"{member.name} failed: {error}")
    # Python may have ignored the error of a signal in a callback.
    interrupt.check()

  try:
    if pool is None:
      _run_here(left, origin, progress, on_end)
    else:
      pool.run(left, origin, progress, on_end)
  finally:
    progress.close()
    error_log.keep_in(record.folder)
  return failed


def by_program(members: Sequence[Member]) -> list[Member]:
  """Returns members with those that share a program next to each other."""
  keys: dict[Any, int] = {}
  for i, member in enumerate(members):
    keys.setdefault(member.key or i, i)
  places = {m.name: keys[m.key or i] for i, m in enumerate(members)}
  return sorted(members, key=lambda member: places[member.name])


def describe_programs(members: Sequence[Member]) -> str:
  """Returns a line that says how many programs members need."""
  shared = [member.key for member in members if member.key is not None]
  alone = len(members) - len(shared)
  count = len({*shared}) + alone
  return f"{len(members)} members to train, by {count} programs"


def _run_here(
  left: Sequence[Member],
  origin: Origin,
  progress: Progress,
  on_end: Callable[[Member, str | None], None],
) -> None:
  """Runs members in this process."""
  shared = Sharing()
  for member in left:
    try:
      error = members.attempt(
        member.config,
        member.place,
        member.origin(origin),
        lambda step, name=member.name: progress.step(name, step),
        None if member.key is None else shared.make,
      )
    except Interrupted as stop:
      stop.args = (f"{member.name}: {stop}",)
      raise
    on_end(member, error)
