"""Identity and environment of runs, and files of their records."""

import hashlib
import importlib.metadata
import json
import pathlib
import platform
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from bitnet_jax.config import DECIDED, without_later
from bitnet_jax.files import PathLike, local_path, parse_json, read_bytes

LARGEST_RECORDS = 2**28  # bytes of a file of them

# What may differ between two starts of one run.
FREE_KEYS = (
  "mesh",
  "sharding_rules",
  "log_every",
  "eval_every",
  "checkpoint_every",
  "statistics_every",
  "steps_per_dispatch",
  "init_from",  # In the fingerprint, by content.
  "profile",
  DECIDED,  # Reasons; the values are in their keys.
)
# Tasks with ``SparseAdam``. It applies missed updates at the end of a dispatch,
# so that rounding depends on the cadences that end a dispatch early.
BY_ROWS = ("documents",)
PACKAGES = (
  "bitnet-jax",
  "flax",
  "jax",
  "jaxlib",
  "numpy",
  "optax",
  "orbax-checkpoint",
)


def identity(config: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
  """Returns what identifies a run: its config without ``FREE_KEYS``, as JSON.

  It has the cadences that affect the parameters: that of evaluations if early
  stopping may end the run, and those that end dispatches with ``SparseAdam``.

  Args:
    config: resolved config.
    fingerprint: of data, vocabulary, teacher and initial parameters, by
      content, in place of their locations.
  """
  kept = without_later(config)
  kept = {k: v for k, v in kept.items() if k not in FREE_KEYS}
  kept |= {key: config[key] for key in _deciding_cadences(config)}
  free = ("source", "tokenizer", "data_dir", "in_memory")
  data = {k: v for k, v in kept["data"].items() if k not in free}
  kept["data"] = data | {"fingerprint": fingerprint}
  # Without a teacher, the options of distillation change nothing.
  distill = dict(kept.pop("distill", {"teacher": None}))
  if distill.pop("teacher") is not None:
    kept["distill"] = distill
  return json.loads(json.dumps(kept, sort_keys=True))


def _deciding_cadences(config: Mapping[str, Any]) -> set[str]:
  """Returns the keys of cadences that affect the parameters."""
  found = set()
  if config.get("early_stopping", {"patience": None})["patience"] is not None:
    found.add("eval_every")
  if config.get("task", {"name": None})["name"] in BY_ROWS:
    at_once = config["steps_per_dispatch"]
    for key in ("eval_every", "checkpoint_every"):
      if config[key] and config[key] % at_once:
        found.add(key)
  return found


def run_id(config: Mapping[str, Any], fingerprint: str) -> str:
  """Returns twelve hexadecimal digits that name the run."""
  text = json.dumps(identity(config, fingerprint), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
  """Returns the keys that differ between two nested dicts, with both values."""
  found = []
  for key in sorted({*old, *new}):
    name = f"{prefix}{key}"
    if key not in old or key not in new:
      where = "is new" if key in new else "is gone"
      found.append(f"{name} {where}")
    elif isinstance(old[key], dict) and isinstance(new[key], dict):
      found += differences(old[key], new[key], f"{name}.")
    elif old[key] != new[key]:
      found.append(f"{name}: {old[key]!r} there, {new[key]!r} now")
  return found


def versions() -> dict[str, str | None]:
  """Returns the versions of Python and of ``PACKAGES``."""
  found: dict[str, str | None] = {"python": platform.python_version()}
  for package in PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found[package] = None
  return found


def commit(*, of: Iterable[PathLike] | None = None) -> str | None:
  """Returns the git commit of the package, "-dirty" if changed, if any.

  Args:
    of: files and folders; changes of other files do not count then.
  """
  folder = pathlib.Path(__file__).parent

  def git(*words: str) -> str:
    done = subprocess.run(
      ["git", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()

  describe = ("describe", "--always", "--abbrev=40", "--exclude=*")
  try:
    if of is None:
      return git(*describe, "--dirty")
    paths = [f"{local_path(path).absolute()}" for path in of]
    changed = git("status", "--porcelain", "--", *paths)
    return git(*describe) + "-dirty" * bool(changed)
  except (OSError, subprocess.CalledProcessError):
    return None


def device() -> str:
  """Returns number and kind of the devices: "1 x cpu"."""
  devices = jax.devices()
  return f"{len(devices)} x {devices[0].device_kind}"


def load(path: PathLike) -> list[dict[str, Any]]:
  """Returns the records of a file of JSON lines; none if it is not there.

  Raises:
    ValueError: for a line that is no object of JSON, naming it, or a file of
      more than ``LARGEST_RECORDS`` bytes.
  """
  path = local_path(path)
  if not path.exists():
    return []
  records = []
  data = read_bytes(path, most=LARGEST_RECORDS)
  for number, line in enumerate(data.splitlines(), start=1):
    try:
      record = parse_json(line)
      if not isinstance(record, dict):
        raise ValueError("it is no object")
    except ValueError as error:
      raise ValueError(f"{path}, line {number}: {error}") from error
    records.append(record)
  return records


def append(path: PathLike, record: Mapping[str, Any]) -> None:
  """Adds a record to a file of JSON lines."""
  path = local_path(path)
  with path.open("a", encoding="utf-8") as file:
    file.write(json.dumps(record) + "\n")


def group(
  records: Iterable[Mapping[str, Any]], *keys: str
) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
  """Groups records by values of their config, keys as in flags."""
  groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
  for record in records:
    values = tuple(look_up(record["config"], key) for key in keys)
    groups.setdefault(values, []).append(record)
  return groups


def look_up(config: Mapping[str, Any], key: str) -> Any:
  """Returns the value of a dotted key."""
  value: Any = config
  for name in key.split("."):
    value = value[name]
  return value
