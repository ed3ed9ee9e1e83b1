"""The loop."""

import signal
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bitnet_jax.train.hooks import Hook
from bitnet_jax.train.sharding import place_batch
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.step import TrainStep

BatchAt = Callable[[int], Mapping[str, np.ndarray]]
StrengthSchedule = Callable[[int], np.float32 | None]


def place_strength(strength: np.float32 | None, mesh: Mesh) -> jax.Array | None:
  """Puts the strength of a step on every device; ``None`` stays ``None``."""
  if strength is None:
    return None
  return jax.device_put(strength, NamedSharding(mesh, PartitionSpec()))


def train(
  state: TrainState,
  train_step: TrainStep,
  batch_at: BatchAt,
  *,
  mesh: Mesh,
  key: jax.Array,
  strength: StrengthSchedule,
  hooks: Sequence[Hook],
  total_steps: int,
  should_stop: Callable[[], bool],
) -> TrainState:
  """Trains from ``state.step`` to ``total_steps``, or until it should stop.

  Args:
    state: donated to the first step.
    train_step: jitted, see ``make_train_step``.
    batch_at: returns the batch of a step.
    mesh: where the batches go.
    key: the only source of randomness.
    strength: share of quantization in force by step.
    hooks: called in order after each step.
    total_steps: where to end.
    should_stop: asked before each step.

  Returns:
    The last state.
  """
  with jax.transfer_guard_host_to_device("disallow"):
    for step in range(int(state.step), total_steps):
      if should_stop():
        break
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        state, metrics = train_step(
          state,
          place_batch(batch_at(step), mesh),
          key,
          place_strength(strength(step), mesh),
        )
      for hook in hooks:
        hook(step + 1, state, metrics)
  return state


class Interrupt:
  """Remembers the first SIGINT or SIGTERM, so that a step can be finished.

  A second one acts at once. A context manager; only for the main thread.

  Attributes:
    received: the signal, once there was one.
  """

  _SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.received: signal.Signals | None = None
    self._before: dict[signal.Signals, Any] = {}

  def __enter__(self) -> "Interrupt":
    self._before = {s: signal.signal(s, self._note) for s in self._SIGNALS}
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: FrameType | None) -> None:
    del frame
    self.received = signal.Signals(number)
    self.__exit__()
