"""Runs members in this process, one after another."""

import gc
import logging as std_logging
import pathlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging

from bitnet_jax import error_log
from bitnet_jax.files import PathLike
from bitnet_jax.train import console, runner
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder.starts import Origin

OnStep = Callable[[int], None]
Make = Callable[[Mapping[str, Any], pathlib.Path], Experiment]


def warn_once() -> None:
  """Has members of this process log each message only once."""
  told: set[str] = set()

  def is_new(record: std_logging.LogRecord) -> bool:
    message = record.getMessage()
    if message in told:
      return False
    told.add(message)
    return True

  logging.get_absl_handler().addFilter(is_new)


def run(
  config: Mapping[str, Any],
  folder: PathLike,
  origin: Origin | None = None,
  on_step: OnStep | None = None,
  make: Make | None = None,
) -> dict[str, Any]:
  """Trains or resumes a run as ``runner.run`` does, and frees its memory.

  Args:
    config: nested dict.
    folder: the workdir.
    origin: see ``runner.run``, like the next one.
    on_step: see above.
    make: builds the experiment, with programs that other runs use, too, and
      that are kept; by default it has its own.
  """
  if make is not None:
    return runner.run(config, folder, origin=origin, on_step=on_step, make=make)
  try:
    return runner.run(config, folder, origin=origin, on_step=on_step)
  finally:
    # The next run finds compiled programs in the cache on disk.
    jax.clear_caches()
    gc.collect()


def attempt(
  config: Mapping[str, Any],
  folder: PathLike,
  origin: Origin | None = None,
  on_step: OnStep | None = None,
  make: Make | None = None,
) -> str | None:
  """Runs without messages of the run.

  Returns:
    The error of a run that failed, in one line; ``None`` if it is finished. A
    signal raises ``Interrupted``.
  """
  with console.showing("quiet"):
    try:
      run(config, folder, origin, on_step, make)
    except Exception as error:
      return describe_error(error)
  return None


def describe_error(error: Exception) -> str:
  """Returns an error in one line; an unexpected one is logged in full."""
  text = " ".join(f"{error}".split())
  if isinstance(error, ValueError | ArithmeticError | OSError) and text:
    return text
  error_log.add("".join(traceback.format_exception(error)))
  return f"{type(error).__name__}: {text}"
