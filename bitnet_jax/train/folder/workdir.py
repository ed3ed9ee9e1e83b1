"""Config, result and evaluation in a run folder, and checks of the run."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging

from bitnet_jax import choices
from bitnet_jax.config import completed
from bitnet_jax.files import is_address, read_json, write_atomically
from bitnet_jax.train.config import lengths
from bitnet_jax.train.folder import bucket, records
from bitnet_jax.train.folder.lock import CONFIG_FILE as CONFIG_FILE
from bitnet_jax.train.folder.lock import METRICS_FILE
from bitnet_jax.train.folder.lock import RESULT_FILE as RESULT_FILE
from bitnet_jax.train.folder.lock import Lock as Lock
from bitnet_jax.train.folder.lock import WorkdirError as WorkdirError

_LISTED = 5  # Runs in a message.
EVALUATION_FILE = "evaluation.json"
FROZEN_FILE = "model.json"
SWEEP_FILE = "sweep.json"
_FINGERPRINT = "data_fingerprint"
_OURS = (METRICS_FILE, RESULT_FILE)
# Of a result, what a start of the run reads.
_RESULT_KEYS = {"run_id": str, "step": int, "metrics": dict}


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
    fingerprint: fingerprint of the data.
    step: the newest checkpoint, 0 for none.

  Returns:
    The config, with the lengths that the run had before, see ``lengths``.

  Raises:
    WorkdirError: if the folder holds another run, listing the keys that
      differ, or a run without a config. A longer ``total_steps`` resumes.
  """
  old_config = check_same(folder, config, fingerprint)
  if old_config is not None:
    with _damage_in(folder / CONFIG_FILE):
      config = lengths.continued(config, old_config, step)
  write_config(folder, config, fingerprint)
  return dict(config)


def check_same(
  folder: pathlib.Path, config: Mapping[str, Any], fingerprint: str
) -> dict[str, Any] | None:
  """Returns the config of the run in a folder; ``None`` if none is there.

  Args:
    folder: the workdir.
    config: resolved config, its length in ``total_steps``.
    fingerprint: fingerprint of the data.

  Raises:
    WorkdirError: see ``claim``.
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
    return None
  new = records.identity(lengths.without(config), fingerprint)
  with _damage_in(folder / CONFIG_FILE):
    old_config, old_fingerprint = read_config(folder)
    old = records.identity(lengths.without(old_config), old_fingerprint)
    if old["total_steps"] < new["total_steps"]:
      old["total_steps"] = new["total_steps"]
  changed = records.differences(old, new)
  if changed:
    raise WorkdirError(
      f"--workdir={folder} holds another run; what differs: "
      + "; ".join(changed)
      + ". Choose another folder"
    )
  return old_config


def write_config(
  folder: pathlib.Path, config: Mapping[str, Any], fingerprint: str
) -> None:
  """Writes what ``read_config`` reads."""
  write_json(folder / CONFIG_FILE, {**config, _FINGERPRINT: fingerprint})


def check_is_run(folder: pathlib.Path) -> None:
  """Raises a WorkdirError for a folder with a sweep, or another's model.

  Frozen models and imported ones have their vocabulary beside them, which a run
  would replace by its own.
  """
  if is_address(folder):
    raise WorkdirError(
      f"--workdir={folder} is an address; a local folder is required (in"
      " Python, bitnet_jax.train.folder.bucket.place returns one)"
    )
  if (folder / FROZEN_FILE).exists():
    raise WorkdirError(
      f"--workdir={folder} holds a frozen model; choose another folder"
    )
  if (folder / SWEEP_FILE).exists():
    raise WorkdirError(
      f"--workdir={folder} holds a sweep; choose another folder, or that of one"
      " of its members"
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
  with _damage_in(folder / CONFIG_FILE):
    return completed(config), fingerprint


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
  config = read_object(path)
  if config is None:
    raise WorkdirError(
      f"{path} does not exist: no run is there{_runs_near(folder)}"
    )
  fingerprint = config.pop(_FINGERPRINT, None)
  if not isinstance(fingerprint, str):
    raise WorkdirError(
      f"{path} is damaged: {_FINGERPRINT} is {fingerprint!r}, not a string"
    )
  return config, fingerprint


def _runs_near(folder: pathlib.Path) -> str:
  """Names the runs in a folder, or else those beside it, for an error."""
  if bucket.with_addresses(f"{folder}") != f"{folder}":
    return ""
  for place in (folder, folder.parent):
    found = sorted(f"{p.parent}" for p in place.glob(f"*/{CONFIG_FILE}"))
    if found:
      shown = ", ".join(found[:_LISTED] + ["..."] * (len(found) > _LISTED))
      close = choices.nearest(f"{folder}", found)
      return f"; runs nearby: {shown}{close}"
  return ""


def read_object(path: pathlib.Path) -> dict[str, Any] | None:
  """Returns the JSON object in a file; ``None`` if there is no file.

  Raises:
    WorkdirError: if the file is damaged or too large, naming it.
  """
  try:
    return read_json(path)
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise WorkdirError(f"{error}") from error


def read_run_id(folder: pathlib.Path) -> str:
  """Returns what names the run in a folder.

  Raises:
    WorkdirError: if its config cannot be read.
  """
  with _damage_in(folder / CONFIG_FILE):
    return records.run_id(*read_config(folder))


@contextlib.contextmanager
def _damage_in(path: pathlib.Path) -> Iterator[None]:
  """Turns errors of a file's structure into one that names it."""
  try:
    yield
  except WorkdirError:
    raise
  except KeyError as error:
    raise WorkdirError(f"{path} is damaged: it has no key {error}") from error
  except (AttributeError, TypeError, ValueError) as error:
    raise WorkdirError(
      f"{path} is damaged: a value is of another type than it must be ({error})"
    ) from error


def recorded_data(folder: pathlib.Path | None) -> str:
  """Returns the fingerprint of the data of the run in a folder, "" for none.

  Raises:
    WorkdirError: if its config cannot be read.
  """
  if folder is None or not (folder / CONFIG_FILE).exists():
    return ""
  return read_config(folder)[1]


def recorded_config(folder: pathlib.Path | None) -> dict[str, Any] | None:
  """Returns the config of the run in a folder, ``None`` for none.

  Raises:
    WorkdirError: if it cannot be read.
  """
  if folder is None or not (folder / CONFIG_FILE).exists():
    return None
  return read_run(folder)[0]


def read_result(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns the content of ``result.json``, if it is there."""
  path = folder / RESULT_FILE
  result = read_object(path)
  if result is not None:
    for key, kind in _RESULT_KEYS.items():
      if type(result.get(key)) is not kind:
        raise WorkdirError(
          f"{path} is damaged: {key} is {result.get(key)!r}, not of type"
          f" {kind.__name__}"
        )
  return result


def write_evaluation(
  folder: pathlib.Path, evaluation: Mapping[str, Any]
) -> None:
  """Writes ``evaluation.json``, or warns that it cannot be written.

  What took long to measure is not lost with a folder that is read only.
  """
  try:
    write_json(folder / EVALUATION_FILE, evaluation)
  except OSError as error:
    logging.warning("%s is not written: %s", EVALUATION_FILE, error)


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes an indented JSON file of a run, whole or not at all."""
  write_atomically(path, json.dumps(content, indent=2) + "\n")
  bucket.send(path.parent)
