"""Scalars in TensorBoard's event files."""

import pathlib
import time
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

_PROTO: Any = event_pb2  # Its classes are made when it is imported.


class EventFile:
  """An event file of a run, written without a thread.

  ``tensorboardX.SummaryWriter`` uses one. An error ends that thread, and the
  run then waits forever for room in its queue.
  """

  def __init__(self, folder: pathlib.Path, *, purge_step: int | None):
    """Makes the file.

    Args:
      folder: where event files are; made if it is not there.
      purge_step: hides earlier files from this step on; ``None`` for none.

    Raises:
      OSError: if it cannot be written; the methods raise it, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    self._file = EventsWriter(str(folder / "events"))
    if purge_step is not None:
      self._write(purge_step, file_version="brain.Event:2")
      start = _PROTO.SessionLog(status=_PROTO.SessionLog.START)
      self._write(purge_step, session_log=start)

  def add_scalar(self, name: str, value: float, step: int) -> None:
    """Writes one value of a step."""
    self._write(step, summary=summary.scalar(name, value))

  def _write(self, step: int, **content: Any) -> None:
    event = _PROTO.Event(step=step, wall_time=time.time(), **content)
    self._file.write_event(event)

  def flush(self) -> None:
    """Hands all values to the system."""
    self._file.flush()

  def close(self) -> None:
    """Flushes and closes the file."""
    self._file.close()
