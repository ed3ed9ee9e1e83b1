"""The folder of a run: who may use it, and what it says of the run."""

import fcntl
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from bitnet_jax.files import is_address, write_atomically
from bitnet_jax.train import bucket, lengths, records

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
EVALUATION_FILE = "evaluation.json"
FROZEN_FILE = "model.json"
_LOCK_FILE = ".lock"
_FINGERPRINT = "data_fingerprint"
_OURS = ("metrics.jsonl", RESULT_FILE)


class WorkdirError(ValueError):
  """A folder cannot be used for this run."""


def lock(folder: pathlib.Path) -> Any:
  """Makes the folder and keeps other processes out until the result is closed.

  Raises:
    WorkdirError: if it is a file, or if another process is at work in it.
  """
  if folder.exists() and not folder.is_dir():
    raise WorkdirError(f"--workdir={folder} is not a folder")
  folder.mkdir(parents=True, exist_ok=True)
  file = (folder / _LOCK_FILE).open("w")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    file.close()
    raise WorkdirError(
      f"--workdir={folder} is in use by another process"
    ) from error
  return file


def claim(
  folder: pathlib.Path,
  config: Mapping[str, Any],
  fingerprint: str,
  *,
  step: int = 0,
) -> dict[str, Any]:
  """Writes ``config.json``, or checks that the one there is of the same run.

  Args:
    folder: the workdir.
    config: resolved config, its length in ``total_steps``.
    fingerprint: of the data.
    step: the newest checkpoint, 0 for none.

  Returns:
    The config, with the lengths that the run had before, see ``lengths``.

  Raises:
    WorkdirError: if the folder holds another run, listing the keys that
      differ, or a run without a config. A longer ``total_steps`` goes on.
  """
  if not (folder / CONFIG_FILE).exists():
    remains = [name for name in _OURS if (folder / name).exists()]
    if bucket.checkpoint_folder(folder).exists():
      remains.append(bucket.CHECKPOINTS)
    if remains:
      raise WorkdirError(
        f"--workdir={folder} holds {', '.join(remains)} but no {CONFIG_FILE};"
        " choose another folder"
      )
  else:
    old_config, old_fingerprint = read_config(folder)
    old = records.identity(lengths.without(old_config), old_fingerprint)
    new = records.identity(config, fingerprint)
    if old["total_steps"] < new["total_steps"]:
      old["total_steps"] = new["total_steps"]
    changed = records.differences(old, new)
    if changed:
      raise WorkdirError(
        f"--workdir={folder} holds another run; what differs: "
        + "; ".join(changed)
        + ". Choose another folder"
      )
    config = lengths.continued(config, old_config, step)
  write_config(folder, config, fingerprint)
  return dict(config)


def write_config(
  folder: pathlib.Path, config: Mapping[str, Any], fingerprint: str
) -> None:
  """Writes what ``read_config`` reads."""
  write_json(folder / CONFIG_FILE, {**config, _FINGERPRINT: fingerprint})


def check_is_run(folder: pathlib.Path) -> None:
  """Raises a WorkdirError for a folder with a model that is no run's.

  Frozen models and imported ones have their vocabulary beside them, which a run
  would replace by its own.
  """
  if is_address(folder):
    raise WorkdirError(
      f"--workdir={folder} is an address, where a folder of this machine is"
      " needed; in Python, bitnet_jax.train.bucket.place makes one of it"
    )
  if (folder / FROZEN_FILE).exists():
    raise WorkdirError(
      f"--workdir={folder} holds a frozen model; choose another folder"
    )
  if (folder / CONFIG_FILE).exists():
    _check_trained(folder, read_config(folder)[0])


def read_run(folder: pathlib.Path) -> tuple[dict[str, Any], str]:
  """Returns a run's config, with the keys that came later, and fingerprint.

  Raises:
    WorkdirError: also for parameters that were imported.
  """
  config, fingerprint = read_config(folder)
  _check_trained(folder, config)
  return with_later_keys(lengths.without(config)), fingerprint


def _check_trained(folder, config):
  if "task" not in config:
    raise WorkdirError(
      f"{folder} holds parameters to start from (init_from), not a run; choose"
      " another folder"
    )


def read_config(folder: pathlib.Path) -> tuple[dict[str, Any], str]:
  """Returns the resolved config of a run and the fingerprint of its data.

  Raises:
    WorkdirError: if there is no ``config.json``, or if it cannot be read.
  """
  path = folder / CONFIG_FILE
  try:
    config = json.loads(path.read_text(encoding="utf-8"))
    return config, config.pop(_FINGERPRINT)
  except FileNotFoundError as error:
    raise WorkdirError(f"{path} does not exist: no run is there") from error
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise WorkdirError(f"{path} is damaged: {error}") from error


def recorded_data(folder: pathlib.Path | None) -> str:
  """Returns the fingerprint of the data of the run in a folder, "" for none.

  Raises:
    WorkdirError: if its config cannot be read.
  """
  if folder is None or not (folder / CONFIG_FILE).exists():
    return ""
  return read_config(folder)[1]


def with_later_keys(config: Mapping[str, Any]) -> dict[str, Any]:
  """Adds the keys that configs of earlier versions had not."""
  distill = dict(teacher=None, weight=0.5, temperature=2.0, features=())
  phase_in = {"optimizer": "keep", **config["quant"]["phase_in"]}
  quant = {**config["quant"], "phase_in": phase_in}
  found = {"distill": distill, **config, "quant": quant}
  for group, name, key, before in records.LATER_KEYS:
    if found[group]["name"] == name:
      found[group] = {key: before, **found[group]}
  return found


def read_result(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns the content of ``result.json``, if it is there."""
  path = folder / RESULT_FILE
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise WorkdirError(f"{path} is damaged: {error}") from error


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes an indented JSON file of a run, whole or not at all."""
  write_atomically(path, json.dumps(content, indent=2) + "\n")
  bucket.send(path.parent)
