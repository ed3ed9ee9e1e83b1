"""Records of studies: lines of JSON, one for each run.

A record keeps the keys of its config that differ from ``base(task, model)``,
curves of at most ``MOST_POINTS`` points, and the last code statistics of each
layer. A run that diverged has a record, too.
"""

import contextlib
import fcntl
import fnmatch
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from bitnet_jax import choices
from bitnet_jax.config import base, completed
from bitnet_jax.files import PathLike, local_path, parse_json, read_bytes
from bitnet_jax.layers.introspection import kernel_at
from bitnet_jax.train.folder import starts
from bitnet_jax.train.folder.records import LARGEST_RECORDS
from bitnet_jax.train.sweep.outcome import CODE_NAMES

SCHEMA = "bitnet_jax.study/1"
RESULTS_FILE = "results.jsonl"
MOST_POINTS = 25
ZEROS = "weights/zero_fraction"  # of all ternary weights of a net
CURVES = ("train/loss", "valid/loss", "valid/accuracy")
_LONGEST = 2**20  # bytes of a line
_DIGITS = 6  # significant ones of a number
# Entries of a record, with the values that an older one lacks.
_ENTRIES: Mapping[str, Any] = {
  "schema": SCHEMA,
  "study": None,
  "scale": None,
  "case": None,
  "cell": {},
  "seed": None,
  "config": {},
  "run_id": None,
  "step": None,
  "epochs": None,
  "num_params": None,
  "metrics": {},
  "best": None,
  "curves": {},
  "layers": {},
  "diverged": None,
  "wall_time_s": None,
  "date": None,
  "versions": {},
  "commit": None,
  "device": None,
  "plan": None,
}
_ANCHORS = ("valid/", "weights/", "train/")
_PACKAGES = ("python", "jax", "flax", "optax")


def describe(
  result: Mapping[str, Any],
  lines: Sequence[Mapping[str, Any]],
  layers: Mapping[str, Mapping[str, float]],
  variables: Mapping[str, Any],
  *,
  curves: Sequence[str] = CURVES,
  **named: Any,
) -> dict[str, Any]:
  """Returns the record of a run.

  Args:
    result: the content of ``result.json``; without metrics if it diverged.
    lines: of ``metrics.jsonl``.
    layers: the last code statistics by path of the layer: the fractions
      "zeros", "negative" and "positive", and "scale".
    variables: the last variables, for the numbers of weights.
    curves: patterns for the names of metrics whose curves are kept.
    **named: further entries, such as "study", "case" and "diverged".
  """
  metrics = dict(result.get("metrics", {}))
  layers = {
    path: {**values, "size": kernel_at(variables["params"], path).size}
    for path, values in layers.items()
  }
  if layers:
    zeros = {path: layer["zeros"] for path, layer in layers.items()}
    metrics[ZEROS] = _mean(zeros, layers)
    lines = [_with_zeros(line, layers) for line in lines]
  best = result.get("best")
  if best is not None:
    best = {"step": best["step"], "metrics": best["metrics"]}
  versions = result["versions"]
  found = {
    **result,
    "config": compact(unplaced(result["config"])),
    "best": best,
    "curves": curves_of(lines, curves),
    "layers": layers,
    "metrics": metrics,
    "versions": {name: versions.get(name) for name in _PACKAGES},
    **named,
    "schema": SCHEMA,
  }
  record = {key: found.get(key, default) for key, default in _ENTRIES.items()}
  record = json.loads(json.dumps(record))
  return rounded(record) | {"cell": record["cell"], "config": record["config"]}


def _with_zeros(
  line: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
  """Adds the fraction of zeros of all layers to a line that has statistics."""
  zeros = {path: line.get(f"weights/{path}/zero_fraction") for path in layers}
  if None in zeros.values():
    return dict(line)
  return {**line, ZEROS: _mean(zeros, layers)}


def _mean(
  values: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]]
) -> float:
  """Returns a mean over layers, weighted by their numbers of weights."""
  total = sum(layer["size"] for layer in layers.values())
  return sum(v * layers[path]["size"] for path, v in values.items()) / total


def compact(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the keys of a config that differ from ``base(task, model)``.

  The names of task and model are always there.
  """

  def cut(values, defaults):
    kept = {}
    for key, value in values.items():
      if key in defaults and value == defaults[key]:
        continue
      default = defaults.get(key)
      nested = isinstance(value, dict) and isinstance(default, dict)
      kept[key] = cut(value, default) if nested else value
    return kept

  config = json.loads(json.dumps(config))
  task, model = config["task"]["name"], config["model"]["name"]
  kept = cut(config, json.loads(json.dumps(base(task, model).to_dict())))
  kept["task"] = {"name": task, **kept.get("task", {})}
  kept["model"] = {"name": model, **kept.get("model", {})}
  return kept


def expand(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config with every key, from what ``compact`` left of it."""
  return json.loads(json.dumps(completed(config)))


def unplaced(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config without the folders of this machine."""
  data = dict(config["data"])
  for key in ("source", "tokenizer"):
    if isinstance(data.get(key), str) and ":" in data[key]:
      scheme, _, path = data[key].partition(":")
      data[key] = f"{scheme}:{pathlib.PurePath(path).name}"
  if data.get("data_dir"):
    data["data_dir"] = pathlib.PurePath(data["data_dir"]).name
  distill = dict(config["distill"])
  config = {**config, "data": data, "distill": distill}
  for group, key in ((config, "init_from"), (distill, "teacher")):
    if group[key] is not None:
      group[key] = pathlib.PurePath(group[key]).name
  return config


def curves_of(
  lines: Sequence[Mapping[str, Any]], patterns: Sequence[str]
) -> dict[str, list[Any]]:
  """Returns the curves of a run, at steps that they share.

  These are the steps of evaluations, or else of code statistics, or else of
  logged training steps. At each of them, a curve has the last value up to it,
  ``None`` without one. Of more than ``MOST_POINTS`` steps, the first, the last
  and some between them at equal distances are kept.
  """
  series: dict[str, list[tuple[int, float]]] = {}
  for line in lines:
    for name, value in line.items():
      if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        series.setdefault(name, []).append((line["step"], value))
  steps: list[int] = []
  for prefix in _ANCHORS:
    found = [s for n, s in series.items() if n.startswith(prefix)]
    if found:
      steps = sorted({step for points in found for step, _ in points})
      break
  if not steps:
    return {}
  if len(steps) > MOST_POINTS:
    picked = np.linspace(0, len(steps) - 1, MOST_POINTS).round().astype(int)
    steps = [steps[i] for i in picked]
  return {"step": steps} | {
    name: [_last(points, step) for step in steps]
    for name, points in sorted(series.items())
  }


def _last(points: Sequence[tuple[int, float]], step: int) -> float | None:
  """Returns the last value up to a step."""
  before = [value for at, value in points if at <= step]
  return before[-1] if before else None


def layers_of(
  lines: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, float]]:
  """Returns the last code statistics of each layer in lines of metrics."""
  found: dict[str, dict[str, float]] = {}
  for line in lines:
    for name, value in line.items():
      path, _, part = name.removeprefix("weights/").rpartition("/")
      if name.startswith("weights/") and path:
        found.setdefault(path, {})[part] = value
  return {
    path: {key: values[part] for key, part in CODE_NAMES.items()}
    for path, values in found.items()
    if set(CODE_NAMES.values()) <= {*values}
  }


def rounded(value: Any) -> Any:
  """Returns JSON whose floats have few digits."""
  if isinstance(value, float):
    return float(f"{value:.{_DIGITS}g}")
  if isinstance(value, dict):
    return {key: rounded(item) for key, item in value.items()}
  if isinstance(value, list):
    return [rounded(item) for item in value]
  return value


def load(path: PathLike) -> list[dict[str, Any]]:
  """Returns the records of a file of JSON lines; none if it is not there.

  A last line that a kill cut off is left out, with a warning. Records of an
  older form get the entries that they lack.

  Raises:
    ValueError: for another line that is no object of JSON, or a record of
      another schema; names file and line.
  """
  path = local_path(path)
  if not path.exists():
    return []
  lines = read_bytes(path, most=LARGEST_RECORDS).splitlines(keepends=True)
  found = []
  for number, line in enumerate(lines, start=1):
    where = f"{path}, line {number}"
    try:
      record = parse_json(line)
      if not isinstance(record, dict):
        raise ValueError("it is no object")
    except ValueError as error:
      if number == len(lines):
        logging.warning("%s is cut off, and left out: %s", where, error)
        break
      raise ValueError(f"{where}: {error}") from error
    found.append(_current(record, where))
  return found


def _current(record: Mapping[str, Any], where: str) -> dict[str, Any]:
  """Returns a record in the form of today."""
  choices.check(record.get("schema", SCHEMA), [SCHEMA], key=f"{where}: schema")
  older = {key: record[key] for key in record if key not in starts.KEYS}
  seed = record.get("config", {}).get("seed")
  return {**_ENTRIES, "seed": seed, **older, "date": record.get("date")}


def append(path: PathLike, record: Mapping[str, Any]) -> None:
  """Adds a record to a file of JSON lines, whole or not at all.

  A last line that a kill cut off is removed; one that only lacks its end is
  completed. Several processes may append to one file.
  """
  path = local_path(path)
  with path.open("a+b") as file, _locked(file):
    _repair(file, path)
    file.write(json.dumps(record).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _locked(file: Any) -> Iterator[None]:
  fcntl.flock(file, fcntl.LOCK_EX)
  try:
    yield
  finally:
    file.flush()
    fcntl.flock(file, fcntl.LOCK_UN)


def _repair(file: Any, path: pathlib.Path) -> None:
  """Completes or removes a last line that is cut off."""
  size = file.seek(0, os.SEEK_END)
  file.seek(max(0, size - _LONGEST))
  tail = file.read()
  last = tail.rstrip(b"\n").rpartition(b"\n")[2]
  if not last:
    return
  try:
    parse_json(last)
  except ValueError:
    logging.warning("%s: its last line is cut off, and removed", path)
    file.truncate(size - len(tail) + tail.rindex(last))
    return
  if not tail.endswith(b"\n"):
    file.write(b"\n")
