"""Groups of runs that differ by their seed only, and what sets them apart."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bitnet_jax import choices
from bitnet_jax.files import PathLike
from bitnet_jax.train.folder import bucket, listing, records, warm_start
from bitnet_jax.train.folder.listing import FoundRun

CHECKPOINTS = ("last", "best")
# Splits with other sizes or members cannot be compared.
_SPLITS = ("valid_fraction", "test_fraction", "split_seed", "split_names")
# Their values depend on the subword tokens.
_PER_TOKEN = ("accuracy", "loss", "perplexity")
# Not part of what is learned, or named by content instead.
_UNNAMED = {*records.FREE_KEYS, "seed", "decided", "total_epochs"}
_UNNAMED |= {"data.source", "data.tokenizer", "data.data_dir"}


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that differ by their seed only.

  Attributes:
    values: values of the keys that differ between groups, by dotted key.
    runs: the runs by seed.
  """

  values: Mapping[str, Any]
  runs: Mapping[int, FoundRun]

  @property
  def first(self) -> FoundRun:
    """The run with the lowest seed."""
    return next(iter(self.runs.values()))

  @property
  def name(self) -> str:
    """The keys that differ with their values: "quant.recipe=b158"."""
    return ", ".join(f"{k}={shown(v)}" for k, v in self.values.items()) or "all"


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Groups of runs on the same data.

  Attributes:
    title: names task and data.
    groups: the groups, that of the first given run first.
  """

  title: str
  groups: Sequence[Group]

  @property
  def keys(self) -> list[str]:
    """The dotted keys that differ between groups."""
    return list(self.groups[0].values)

  @property
  def runs(self) -> list[FoundRun]:
    """The runs of all groups."""
    return [run for group in self.groups for run in group.runs.values()]

  def pick(self, baseline: str) -> Group:
    """Returns a group by its name, or by a part of it that one group has.

    Raises:
      ValueError: if none or several have it, naming the groups.
    """
    names = [group.name for group in self.groups]
    wanted = {part.strip() for part in baseline.split(",")}
    found = [
      group
      for group in self.groups
      if group.name == baseline or wanted <= {*group.name.split(", ")}
    ]
    if len(found) != 1:
      raise ValueError(
        f"--baseline={baseline} names {len(found)} groups"
        f"{choices.nearest(baseline, names)}; the groups are:"
        f" {'; '.join(names)}"
      )
    return found[0]


def shown(value: Any) -> str:
  """Returns a value of a config as text."""
  return value if isinstance(value, str) else json.dumps(value)


def find(folders: Iterable[PathLike]) -> tuple[list[FoundRun], list[str]]:
  """Returns the finished runs in folders, and lines on what is left out.

  Args:
    folders: run folders, or folders of them, such as that of a sweep.

  Raises:
    ValueError: if no finished run is there.
    FileNotFoundError: for a folder that does not exist.
  """
  runs, notes, seen = [], [], set()
  for folder in folders:
    local = bucket.place(folder)
    if not bucket.is_in_bucket(folder) and not local.exists():
      raise FileNotFoundError(f"{folder} does not exist")
    places = listing.find(local) if local.is_dir() else []
    if not places:
      notes.append(f"{folder} holds no run; it is left out")
    for place in places:
      if place.resolve() in seen:
        continue
      seen.add(place.resolve())
      run = listing.read(place)
      if run.state == "finished":
        runs.append(run)
      else:
        notes.append(_left_out(run))
  if not runs:
    raise ValueError("; ".join([*notes, "there is no finished run to compare"]))
  return runs, notes


def _left_out(run: FoundRun) -> str:
  if run.state == "damaged":
    return f"{run.folder} is damaged and left out: {run.damage}"
  total = run.config["total_steps"]
  return f"{run.folder} is {run.state} at step {run.step} of {total}; left out"


def separate(
  runs: Sequence[FoundRun], metrics: Sequence[str]
) -> tuple[list[Comparison], list[str]]:
  """Groups runs, apart for each task and data.

  Args:
    runs: finished runs.
    metrics: "split/name" of those to compare; empty for that of the config.

  Returns:
    Comparisons, and lines on runs that repeat another one.
  """
  apart: dict[str, list[FoundRun]] = {}
  for run in runs:
    apart.setdefault(_data_of(run, metrics), []).append(run)
  comparisons, notes = [], []
  for alike in apart.values():
    groups, repeated = _group(alike)
    notes += repeated
    first = alike[0].config
    title = f"{first['task']['name']} of {first['data'].get('source')}"
    if len(apart) > 1:
      title += f" ({_what_differs(alike[0])})"
    comparisons.append(Comparison(title, groups))
  return comparisons, notes


def _what_differs(run: FoundRun) -> str:
  """Returns the splits and the content of the data of a run as text."""
  data = run.config["data"]
  found = [f"{key}={shown(data[key])}" for key in _SPLITS if key in data]
  content = warm_start.data_of(run.fingerprint)
  digest = hashlib.sha256(content.encode()).hexdigest()[:8]
  return ", ".join([*found, f"content {digest}"])


def _data_of(run: FoundRun, metrics: Sequence[str]) -> str:
  """Returns what must be the same in runs that are compared, as JSON."""
  config = run.config
  names = metrics or [config["checkpoint"]["metric"]]
  tokens = any(name.partition("/")[2] in _PER_TOKEN for name in names)
  fingerprint = warm_start.content_of(run.fingerprint)
  if "z_loss" in config["task"] and tokens:  # It predicts tokens.
    fingerprint = warm_start.data_of(run.fingerprint)
  splits = {key: config["data"].get(key) for key in _SPLITS}
  return json.dumps([config["task"]["name"], fingerprint, splits])


def _group(runs: Sequence[FoundRun]) -> tuple[list[Group], list[str]]:
  """Returns the groups of runs on the same data, and repeated runs."""
  by_values: dict[str, dict[int, FoundRun]] = {}
  every: dict[str, dict[str, Any]] = {}
  notes = []
  for run in runs:
    values = _values(run)
    name = json.dumps(values, sort_keys=True)
    every[name] = values
    seeds = by_values.setdefault(name, {})
    seed = run.config["seed"]
    if seed in seeds:
      notes.append(
        f"{run.folder} repeats {seeds[seed].folder} (seed {seed}); left out"
      )
    seeds.setdefault(seed, run)
  keys = dict.fromkeys(key for values in every.values() for key in values)
  differing = [
    key
    for key in keys
    if len({json.dumps(v.get(key)) for v in every.values()}) > 1
  ]
  if differing != ["vocabulary"]:  # The key that decides it differs, too.
    differing = [key for key in differing if key != "vocabulary"]
  groups = [
    Group(
      {key: every[name].get(key) for key in differing},
      dict(sorted(seeds.items())),
    )
    for name, seeds in by_values.items()
  ]
  return groups, notes


def _values(run: FoundRun) -> dict[str, Any]:
  """Returns what a run learned with but its seed, by dotted key."""
  values = dict(_flat(run.config, ""))
  if values.get("distill.teacher") is None:
    values = {k: v for k, v in values.items() if not k.startswith("distill.")}
  else:
    values.pop("distill.teacher")
  values["vocabulary"] = warm_start.vocabulary_of(run.fingerprint)
  values |= warm_start.earlier_of(run.fingerprint)
  return values


def _flat(config: Mapping[str, Any], prefix: str):
  for name, value in config.items():
    key = f"{prefix}{name}"
    if key in _UNNAMED:
      continue
    if isinstance(value, Mapping):
      yield from _flat(value, f"{key}.")
    else:
      yield key, value
