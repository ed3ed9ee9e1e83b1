"""Signals that end a run, and their messages."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax

from bitnet_jax.train.devices.multihost import Preemption

NOTHING_SAVED = (
  "before the first step; nothing is saved yet, and the same command starts"
  " again"
)
AT_ONCE = "at once; the same command resumes from the last checkpoint, if any"


def goes_on(step: int) -> str:
  """Returns the message of a run that is stopped between two steps."""
  if not step:
    return NOTHING_SAVED
  return (
    f"at step {step}; the checkpoint is saved, and the same command resumes"
    " from there"
  )


def evaluation_goes_on(step: int) -> str:
  """Returns the message of a run that is stopped after its last step."""
  return (
    f"in the evaluation after step {step}; the checkpoint is saved, and the"
    " same command finishes the evaluation"
  )


class Interrupted(KeyboardInterrupt):
  """A signal ended the run.

  As a ``KeyboardInterrupt`` it passes through ``except Exception``.

  Attributes:
    signal: which one.
    at_once: whether to stop without waiting for the checkpoint writer.
  """

  def __init__(
    self, received: signal.Signals, outcome: str, *, at_once: bool = False
  ):
    super().__init__(f"stopped by {received.name} {outcome}")
    self.signal, self.at_once = received, at_once


class Interrupt:
  """Context manager that turns SIGINT and SIGTERM into ``Interrupted``.

  It does nothing outside the main thread. Inside another one, it tells that one
  of a signal. Several processes all stop at the
  same step: there JAX's runtime watches for SIGTERM and preemption notices, and
  SIGINT is sent on as SIGTERM.

  Attributes:
    received: the signal, once there was one.
    outcome: the message of ``Interrupted``, if it were raised now.
  """

  def __init__(self):
    self.received: signal.Signals | None = None
    self.outcome = NOTHING_SAVED
    self._defers = False
    self._before: dict[signal.Signals, Any] = {}
    self._preemption: Preemption | None = None

  def __enter__(self) -> "Interrupt":
    if jax.process_count() > 1:
      self._preemption = Preemption()
      handlers: dict[signal.Signals, Any] = {signal.SIGINT: _send_on}
    else:
      handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM), self._note)
    if threading.current_thread() is threading.main_thread():
      for number, handler in handlers.items():
        self._before[number] = signal.signal(number, handler)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
      around = getattr(handler, "__self__", None)
      # Python may have ignored the error in a callback of a library.
      if isinstance(around, Interrupt) and self.received is not None:
        around.received = self.received

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """Keeps the first signal for later; a second one still acts at once."""
    self._defers = True
    try:
      yield
    finally:
      self._defers = False

  def asked(self) -> bool:
    """Whether to stop; all processes must call it equally often."""
    if self._preemption is not None and self._preemption.reached():
      self.received = signal.SIGTERM
    return self.received is not None

  def check(self) -> None:
    """Raises ``Interrupted`` after a signal, unless signals are deferred.

    All processes must call it equally often.
    """
    if not self._defers and self.asked():
      assert self.received is not None
      raise Interrupted(self.received, self.outcome)

  def _note(self, number: int, frame: FrameType | None) -> None:
    del frame
    again, self.received = self.received, signal.Signals(number)
    if again is not None:
      raise Interrupted(self.received, AT_ONCE, at_once=True)
    if not self._defers:
      raise Interrupted(self.received, self.outcome)


def _send_on(number: int, frame: FrameType | None) -> None:
  """Makes all processes stop at the same step."""
  del number, frame
  os.kill(os.getpid(), signal.SIGTERM)
