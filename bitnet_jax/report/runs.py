"""Runs of studies: what the site shows of a record."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bitnet_jax.config import base
from bitnet_jax.studies.records import SCHEMA

# Of older records: what is no part of their cells.
_OLDER = (
  *("run_id", "step", "config", "metrics", "num_params", "versions", "commit"),
  *("device", "wall_time_s", "epochs", "best", "date", "epoch_s", "case"),
  *("seed", "recipe"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """A record as the site shows it.

  Attributes:
    name: unique in its study.
    record: the record.
    file: name of its file, below the folder of studies.
    line: its line there, from 1.
    family: name of its model, or "".
    recipe: name of its recipe, or number format, or "".
    data: its data set, or "".
    metric: name of the metric that it is judged by, such as "valid/accuracy".
    mode: "max" or "min".
  """

  name: str
  record: Mapping[str, Any]
  file: str
  line: int
  family: str = ""
  recipe: str = ""
  data: str = ""
  metric: str = "valid/accuracy"
  mode: str = "max"

  @property
  def cell(self) -> Mapping[str, Any]:
    """What distinguishes it from others, without its seed."""
    return self.record["cell"]

  @property
  def has_diverged(self) -> bool:
    """Whether a metric became NaN or infinite."""
    return self.record.get("diverged") is not None


def fault_of(record: Mapping[str, Any]) -> str:
  """Returns why a record cannot be shown, or "".

  This takes microseconds, and ``schema.faults_of`` milliseconds.
  """
  found = record.get("schema", SCHEMA)
  if found != SCHEMA:
    return f"its schema is {found!r}, not {SCHEMA!r}"
  metrics = record.get("metrics")
  if not isinstance(metrics, dict):
    return "it has no metrics"
  for name, value in metrics.items():
    if isinstance(value, bool) or not isinstance(value, int | float | None):
      return f"metrics.{name} is {value!r}, which is no number"
  groups = ("cell", "config", "curves", "layers", "versions")
  wrong = [k for k in groups if not isinstance(record.get(k) or {}, dict)]
  if not wrong:
    config = record.get("config") or {}
    groups = ("task", "model", "data", "quant", "checkpoint")
    wrong = [
      f"config.{k}" for k in groups if not isinstance(config.get(k) or {}, dict)
    ]
  return f"{', '.join(wrong)} is no object" if wrong else ""


def describe(record: Mapping[str, Any], file: str, line: int) -> Run:
  """Returns the run of a record, also of one without a schema."""
  record = _finite(record)
  config = record.get("config") or {}
  if "schema" not in record:
    cell = {k: v for k, v in record.items() if k not in _OLDER}
    scalars = (str, int, float, bool)
    cell = {k: v for k, v in cell.items() if isinstance(v, scalars)}
    seed = record.get("seed", config.get("seed"))
    record = {**record, "cell": cell, "seed": seed}
  record = {**record, "cell": record.get("cell") or {}}
  family, recipe, metric, mode = _kind(config)
  recipe = recipe or f"{record.get('recipe', '')}"
  source = (config.get("data") or {}).get("source")
  return Run(
    name=record.get("case") or _name(record, recipe),
    record=record,
    file=file,
    line=line,
    family=family,
    recipe=recipe,
    data="" if source is None else f"{source}",
    metric=metric,
    mode=mode,
  )


def _name(record: Mapping[str, Any], recipe: str) -> str:
  """Returns a name for a record without one."""
  parts = dict(record["cell"])
  if recipe:
    parts["recipe"] = recipe
  parts["seed"] = record.get("seed")
  return ",".join(f"{k}={v}" for k, v in parts.items() if v is not None)


def _kind(config: Mapping[str, Any]) -> tuple[str, str, str, str]:
  """Returns family, recipe, metric and mode of a config, complete or not."""
  groups = [config.get(group) or {} for group in ("task", "model")]
  names = [f"{group.get('name') or ''}" for group in groups]
  defaults = _defaults(*names)

  def look_up(group: str, key: str, otherwise: str) -> str:
    for values in (config, defaults):
      value = (values.get(group) or {}).get(key)
      if value is not None:
        return f"{value}"
    return otherwise

  recipe = look_up("quant", "recipe", "")
  if recipe == "float":
    recipe = look_up("model", "dtype", "float32")
  metric = look_up("checkpoint", "metric", "valid/accuracy")
  mode = look_up("checkpoint", "mode", "max")
  return names[1], recipe, metric, mode


@functools.cache
def _defaults(task: str, model: str) -> Mapping[str, Any]:
  """Returns the keys of a task and a model; none if they are unknown here."""
  try:
    return base(task, model).to_dict()
  except ValueError:
    return {}


def _finite(value: Any) -> Any:
  """Returns JSON with None for values that are NaN or infinite."""
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_finite(item) for item in value]
  return value


def unique(runs: Sequence[Run]) -> list[Run]:
  """Returns runs with unique names: a second of one name gets "#2"."""
  seen: dict[str, int] = {}
  found = []
  for run in runs:
    count = seen[run.name] = seen.get(run.name, 0) + 1
    name = run.name if count == 1 else f"{run.name}#{count}"
    found.append(dataclasses.replace(run, name=name))
  return found


def as_text(value: Any) -> str:
  """Returns a value of a cell as the site shows it and as links name it."""
  if isinstance(value, str):
    return value
  if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
    return f"{int(value)}"
  return json.dumps(value, separators=(",", ":"))
