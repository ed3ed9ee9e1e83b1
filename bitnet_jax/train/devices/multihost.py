"""Several processes: joining, exchanging texts, taking turns.

Every process must call these functions in the same order. With one process
they call or return their argument.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from bitnet_jax.train.folder.records import differences

# A process without a heartbeat for so long counts as lost, and ends all others;
# so does one that waits so long for the others to end.
HEARTBEAT_SECONDS = 30


def initialize(
  *,
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the other processes; must come before any use of JAX.

  On Cloud TPU, SLURM, GKE and Open MPI, JAX finds all three values by itself.

  Args:
    coordinator: "host:port" of the first process.
    num_processes: number of processes.
    process_id: index of this one.

  Raises:
    ValueError: if only some of the three are given, or none and JAX does not
      find them.
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
  """Whether this is the process that writes the files of a run."""
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
    rows: [n, ...], sharded over the devices of all processes.
  """
  return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def on_primary(function: Callable[[], Any]) -> Any:
  """Calls a function in the primary process, and returns its result in all.

  Args:
    function: its result must be JSON.

  Raises:
    ValueError: in other processes, for any error in the primary one, which
      raises the error itself.
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
  """Calls a function in the primary process, and then in all others.

  Use it for a function that leaves a file which the others read.

  Raises:
    ValueError: for an error in another process, naming it.
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
  except Exception as error:  # Sent to the other processes, then raised.
    return None, error


def _described(error):
  return None if error is None else f"{error}"


def _raise_from_all(error, problems):
  """Raises the error of this process, or one that names another process."""
  if error is not None:
    raise error
  for process, problem in enumerate(problems):
    if problem is not None:
      raise ValueError(f"process {process} stopped: {problem}")


def check_agreement(content: Mapping[str, Any]) -> None:
  """Checks that all processes have the same config, versions and so on.

  Args:
    content: what must agree, as JSON.

  Raises:
    ValueError: naming a process and the differences.
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
  """Reports to all processes, at the same step, that one of them must end.

  That is after a preemption notice, or SIGTERM, to any process.
  """

  def __init__(self):
    self._asked = 0

  def reached(self) -> bool:
    """Whether to stop; all processes must call it equally often."""
    self._asked += 1
    return multihost_utils.reached_preemption_sync_point(self._asked)
