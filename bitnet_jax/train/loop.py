"""The training loop."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from bitnet_jax.train.devices.mesh import place_batch, replicate
from bitnet_jax.train.hooks import Hook
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.step import TrainStep

BatchAt = Callable[[int], Mapping[str, np.ndarray]]
StrengthSchedule = Callable[[int], np.float32 | None]


def place_strength(
  strength: np.ndarray | np.float32 | None, mesh: Mesh
) -> jax.Array | None:
  """Replicates strengths over the mesh; ``None`` stays ``None``."""
  return None if strength is None else replicate(strength, mesh)


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
  train_steps: TrainStep | None = None,
  steps_per_dispatch: int = 1,
  full_graph: bool = False,
) -> TrainState:
  """Trains from ``state.step`` to ``total_steps``, or until it should stop.

  Args:
    state: donated to the first step.
    train_step: jitted step, see ``make_train_step``.
    batch_at: returns the batch of a step.
    mesh: the devices.
    key: random key; the only source of randomness.
    strength: returns the strength of quantization of a step.
    hooks: called in order after each dispatch.
    total_steps: number of steps of the run.
    should_stop: called before each dispatch.
    train_steps: jitted program of several steps, see ``make_train_steps``.
    steps_per_dispatch: largest number of steps in one call of ``train_steps``.
      No hook is due between them, and their batches have equal shapes.
    full_graph: see ``place_batch``.

  Returns:
    The last state.
  """
  step = int(state.step)
  room = steps_per_dispatch if train_steps else 1
  place = functools.partial(place_batch, mesh=mesh, full_graph=full_graph)
  with jax.transfer_guard_host_to_device("disallow"):
    while step < total_steps and not should_stop():
      end = min(step + room, total_steps)
      batches = _next_batches(batch_at, step, end, strength, hooks)
      count = len(batches)
      strengths = [strength(i) for i in range(step, step + count)]
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        if train_steps:
          stacked, padded = _stack(batches, strengths, room)
          placed, used = place(stacked, stacked=True), np.int32(count)
          padded = place_strength(padded, mesh)
          state, metrics = train_steps(
            state, placed, key, replicate(used, mesh), padded
          )
        else:
          placed = place_strength(strengths[0], mesh)
          state, metrics = train_step(state, place(batches[0]), key, placed)
      step += count
      for hook in hooks:
        hook(step, state, metrics)
  return state


def _next_batches(batch_at, start, end, strength, hooks):
  """Returns the batches of the next dispatch, which ends at ``end`` at most."""
  batches = [batch_at(start)]
  for step in range(start + 1, end):
    changes_program = (strength(step) is None) != (strength(step - 1) is None)
    if changes_program or any(hook.due(step) for hook in hooks):
      break
    batch = batch_at(step)
    if _shapes(batch) != _shapes(batches[0]):
      break
    batches.append(batch)
  return batches


def _shapes(batch):
  return {name: array.shape for name, array in batch.items()}


def _stack(batches, strengths, room):
  """Stacks batches and strengths; repeats the last ones up to ``room``."""
  padding = room - len(batches)
  batches = batches + batches[-1:] * padding
  stacked = {
    name: np.stack([batch[name] for batch in batches]) for name in batches[0]
  }
  if strengths[0] is None:
    return stacked, None
  return stacked, np.array(strengths + strengths[-1:] * padding)
