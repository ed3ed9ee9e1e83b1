"""Several processes: how they join, agree and take turns.

All functions are called by every process, in the same order; with a single
process they do the obvious.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from bitnet_jax.train.folder.records import differences

# A process that is not heard of for so long is lost, and ends all others; so
# does one that waits so long for the others to end.
HEARTBEAT_SECONDS = 30


def initialize(
  *,
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the other processes; must come before any use of JAX.

  On Cloud TPU, SLURM, GKE and Open MPI, JAX finds all three out by itself.

  Args:
    coordinator: "host:port" of the first process.
    num_processes: how many there are.
    process_id: number of this one.

  Raises:
    ValueError: if only some of the three are given, or if there is nothing to
      find them out from.
  """
  given = {
    "--coordinator": coordinator,
    "--num_processes": num_processes,
    "--process_id": process_id,
  }
  missing = [name for name, value in given.items() if value is None]
  if missing and len(missing) < len(given):
    raise ValueError(
      f"{', '.join(missing)} must be given too: all of {', '.join(given)},"
      " or none where the cluster is known"
    )
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )
  except ValueError as error:
    raise ValueError(
      f"--multihost found no cluster ({error}); give {', '.join(given)}"
    ) from error
  logging.info(
    "process %d of %d, with %d of %d devices",
    jax.process_index(),
    jax.process_count(),
    jax.local_device_count(),
    jax.device_count(),
  )


def is_primary() -> bool:
  """Whether this is the process that writes."""
  return jax.process_index() == 0


def gather_texts(text: str) -> list[str]:
  """Returns the text of each process."""
  if jax.process_count() == 1:
    return [text]
  data = np.frombuffer(text.encode(), np.uint8)
  lengths = multihost_utils.process_allgather(np.array(len(data)))
  padded = np.zeros(lengths.max(), np.uint8)
  padded[: len(data)] = data
  rows = np.asarray(multihost_utils.process_allgather(padded))
  return [
    row[:length].tobytes().decode()
    for row, length in zip(rows, lengths, strict=True)
  ]


def gather_rows(rows: jax.Array) -> np.ndarray:
  """Returns all rows of an array, in order.

  Args:
    rows: [n, ...], over the devices of all processes.
  """
  return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def on_primary(function: Callable[[], Any]) -> Any:
  """Calls a function in the primary process and tells all what it returned.

  Args:
    function: returns what JSON can hold.

  Raises:
    ValueError: in the others, if it raised an error in the primary, where the
      error itself is raised.
  """
  if jax.process_count() == 1:
    return function()
  result, error = _attempt(function, wanted=is_primary())
  content = {"problem": _described(error)}
  if error is None:
    content["result"] = result
  first = json.loads(gather_texts(json.dumps(content))[0])
  _raise_from_all(error, [first["problem"]])
  return first["result"]


def primary_first(function: Callable[[], Any]) -> Any:
  """Calls a function in the primary process, then in all others.

  For what leaves a file that the others read.

  Raises:
    ValueError: if it raised an error in another process, naming that.
  """
  if jax.process_count() == 1:
    return function()
  result = None
  for turn in (True, False):
    mine = is_primary() == turn
    found, error = _attempt(function, wanted=mine)
    if mine:
      result = found
    texts = gather_texts(json.dumps(_described(error)))
    _raise_from_all(error, [json.loads(text) for text in texts])
  return result


def _attempt(function, *, wanted):
  """Returns the result, and the error if there was one."""
  if not wanted:
    return None, None
  try:
    return function(), None
  except Exception as error:  # Told to the other processes, then raised.
    return None, error


def _described(error):
  return None if error is None else f"{error}"


def _raise_from_all(error, problems):
  """Raises the error of this process, or else one that names another's."""
  if error is not None:
    raise error
  for process, problem in enumerate(problems):
    if problem is not None:
      raise ValueError(f"process {process} stopped: {problem}")


def check_agreement(content: Mapping[str, Any]) -> None:
  """Checks that all processes are about to run the same.

  Args:
    content: what JSON can hold: config, versions and so on.

  Raises:
    ValueError: naming a process and what differs there.
  """
  texts = gather_texts(json.dumps(content, sort_keys=True))
  for process, text in enumerate(texts):
    if text != texts[0]:
      found = differences(json.loads(texts[0]), json.loads(text))
      raise ValueError(
        f"process {process} differs from process 0: {'; '.join(found)}"
        " (there: in process 0)"
      )


def barrier(name: str) -> None:
  """Waits for all processes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


class Preemption:
  """Tells all processes at the same step that one of them is to end.

  A notice of preemption, or SIGTERM, to any process counts.
  """

  def __init__(self):
    self._asked = 0

  def reached(self) -> bool:
    """Whether to stop before the next step; asked by all, equally often."""
    self._asked += 1
    return multihost_utils.reached_preemption_sync_point(self._asked)
