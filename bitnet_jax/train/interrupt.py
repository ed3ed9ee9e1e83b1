"""Signals that end a run, and what is said of it then."""

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
  " anew"
)
AT_ONCE = "at once; the same command goes on from the last checkpoint, if any"


def goes_on(step: int) -> str:
  """Returns what is said of a run that is stopped between two steps."""
  if not step:
    return NOTHING_SAVED
  return (
    f"at step {step}; the checkpoint is saved, and the same command goes on"
    " from there"
  )


def evaluation_goes_on(step: int) -> str:
  """Returns what is said of a run that is stopped after its last step."""
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
  """Turns SIGINT and SIGTERM into ``Interrupted``, at once or after a step.

  A context manager; in other threads than the main one, it does nothing. Of
  several processes all learn at the same step that one was signalled; there
  JAX's runtime watches for SIGTERM, and for notices of preemption, and SIGINT
  is passed on to it.

  Attributes:
    received: the signal, once there was one.
    outcome: what ``Interrupted`` says of the run, were it raised now.
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
      self._handle(signal.SIGINT, _pass_on)
    else:
      self._handle(signal.SIGINT, self._note)
      self._handle(signal.SIGTERM, self._note)
    return self

  def _handle(self, number, handler):
    if threading.current_thread() is threading.main_thread():
      self._before[number] = signal.signal(number, handler)

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """Remembers the first signal; a second one still acts at once."""
    self._defers = True
    try:
      yield
    finally:
      self._defers = False

  def asked(self) -> bool:
    """Whether to stop; of several processes, all ask equally often."""
    if self._preemption is not None and self._preemption.reached():
      self.received = signal.SIGTERM
    return self.received is not None

  def check(self) -> None:
    """Raises ``Interrupted`` if a signal came, unless signals are deferred.

    Of several processes, all call it equally often.
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


def _pass_on(number: int, frame: FrameType | None) -> None:
  """Has all processes stop at the same step."""
  del number, frame
  os.kill(os.getpid(), signal.SIGTERM)
