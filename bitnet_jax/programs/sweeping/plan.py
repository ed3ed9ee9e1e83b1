"""Members of a sweep, all checked before the first one trains."""

import copy
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bitnet_jax.files import PathLike
from bitnet_jax.programs.sweeping import grid as grids
from bitnet_jax.train.build import build
from bitnet_jax.train.config import flags
from bitnet_jax.train.config.settings import RunContext, Settings
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder import bucket, records, workdir
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.sweep import sharing
from bitnet_jax.train.sweep.group import shared_experiment
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.registry import load_data

# Of the checks, what reading the data depends on.
_READ_BY = ("task", "data", "model", "mesh", "init_from", "distill")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
  """A run of a sweep.

  Attributes:
    name: name of its folder, see ``grid.name_of``.
    place: path or address of its folder.
    values: values of the grid, by dotted key.
    config: nested dict, as the run takes it.
    run_id: what names the run.
    total_steps: its length.
    is_finished: whether its folder has its result.
    key: what it has in common with the members that share its program;
      ``None`` for its own program.
  """

  name: str
  place: str
  values: Mapping[str, Any]
  config: Mapping[str, Any]
  run_id: str
  total_steps: int
  is_finished: bool
  key: str | None = None

  def origin(self, sweep: Origin) -> Origin:
    """Returns how it was requested: as the sweep, with its own values."""
    overrides = {**sweep.overrides, **self.values}
    return dataclasses.replace(sweep, overrides=overrides)


def plan(
  config: Any,
  grid: grids.Grid,
  root: PathLike,
  on_check: Callable[[str], None] = lambda name: None,
) -> list[Member]:
  """Returns the members of a sweep, each checked as a run checks itself.

  Args:
    config: a ``ConfigDict`` with every key that no grid has.
    grid: values by dotted key.
    root: folder of the sweep.
    on_check: called with the name of each member before it is checked.

  Raises:
    ValueError: for a mistake in the config of a member, naming it, and for two
      members that are the same run.
    WorkdirError: if the folder of a member holds another run.
  """
  load, members = _Loader(), []
  for values in grids.members(grid):
    name = grids.name_of(values)
    on_check(name)
    try:
      members.append(_member(config, values, name, root, load))
    except (OSError, ValueError) as error:
      if isinstance(error, workdir.WorkdirError):
        raise
      raise type(error)(f"{name}: {error}") from error
  by_id: dict[str, str] = {}
  for member in members:
    same = by_id.setdefault(member.run_id, member.name)
    if same != member.name:
      raise ValueError(
        f"--grid: {same} and {member.name} are the same run, since a key of the"
        " grid does not affect what is learned; leave it out"
      )
  return members


def place_of(root: PathLike, name: str) -> str:
  """Returns the path or the address of a member's folder."""
  if isinstance(root, str) and bucket.is_in_bucket(root):
    return f"{root.rstrip('/')}/{name}"
  return f"{pathlib.Path(root).expanduser() / name}"


def _member(
  config: Any,
  values: Mapping[str, Any],
  name: str,
  root: PathLike,
  load: "_Loader",
) -> Member:
  changed = copy.deepcopy(config)
  for key, value in values.items():
    changed.update_from_flattened_dict({key: value})
  flags.clear_other_length(changed, values)
  chosen = changed.to_dict()
  experiment = load.experiment(chosen)
  place = place_of(root, name)
  folder = bucket.place(place)
  resolved, fingerprint = experiment.config, experiment.fingerprint
  workdir.check_is_run(folder)
  workdir.check_same(folder, resolved, fingerprint)
  result = workdir.read_result(folder)
  return Member(
    name=name,
    place=place,
    values=values,
    config=chosen,
    run_id=experiment.run_id,
    total_steps=experiment.total_steps,
    is_finished=result is not None and result["run_id"] == experiment.run_id,
    key=sharing.key_of(chosen),
  )


class _Loader:
  """Loads data, and keeps the last ones for members that read the same.

  Their batches may be those of another seed, which no check looks at.
  """

  def __init__(self):
    self._key, self._data = "", []
    self._shared: tuple[str, Experiment] | None = None

  def experiment(self, config: Mapping[str, Any]) -> Experiment:
    """Builds an experiment, from the last one if only numbers differ."""
    key = sharing.key_of(config)
    if key is None or self._shared is None or key != self._shared[0]:
      found = build(config, load=self)
      self._shared = None if key is None else (key, found)
      return found
    return shared_experiment(self._shared[1], config)

  def __call__(self, settings: Settings, context: RunContext) -> base.TaskData:
    read_by = [getattr(settings, name) for name in _READ_BY]
    parts = (settings.optim.accumulate_steps, context)
    key = repr((read_by, parts))
    if key != self._key:
      self._data.clear()  # Frees its memory before more is read.
      self._data.append(load_data(settings, context))
      self._key = key
    return self._data[0]


def check_base(
  folder: pathlib.Path,
  old: Mapping[str, Any],
  new: Mapping[str, Any],
  keys: Iterable[str],
) -> None:
  """Checks that the config of a sweep is that of its earlier starts.

  Args:
    folder: folder of the sweep.
    old: the config of the earlier starts.
    new: that of this start.
    keys: of both grids, whose values in the config no member has.

  Raises:
    WorkdirError: naming the keys that differ, with both values.
  """
  changed = records.differences(_compared(old, keys), _compared(new, keys))
  if changed:
    raise workdir.WorkdirError(
      f"--workdir={folder} holds a sweep of another config; what differs: "
      + "; ".join(changed)
      + ". Choose another folder"
    )


def _compared(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
  """Returns what a config decides: not data by place, nor keys of the grid."""
  kept = json.loads(json.dumps(records.identity(config, "")))
  for key in ("init_from",):
    kept[key] = config.get(key)
  for key in keys:
    *groups, leaf = key.split(".")
    group = kept
    for name in groups:
      group = group.get(name, {})
    group.pop(leaf, None)
  return kept
