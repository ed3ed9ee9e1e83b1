"""The loop."""

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
  """Puts strengths of steps on every device; ``None`` stays ``None``."""
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

  Steps are dispatched one by one; or, which saves the time between them, so
  many at once as no hook, schedule or end comes between and as have batches of
  equal shapes.

  Args:
    state: donated to the first step.
    train_step: jitted, see ``make_train_step``.
    batch_at: returns the batch of a step.
    mesh: where the batches go.
    key: the only source of randomness.
    strength: of quantization, by step.
    hooks: called in order after each dispatch.
    total_steps: where to end.
    should_stop: asked before each dispatch.
    train_steps: jitted, see ``make_train_steps``; for several at once.
    steps_per_dispatch: at most so many at once.
    full_graph: see ``place_batch``.

  Returns:
    The last state.
  """
  step = int(state.step)
  room = steps_per_dispatch if train_steps else 1
  with jax.transfer_guard_host_to_device("disallow"):
    while step < total_steps and not should_stop():
      batches = [batch_at(step)]
      for i in range(step + 1, min(step + room, total_steps)):
        if _comes_between(i, strength, hooks):
          break
        batch = batch_at(i)
        if _shapes(batch) != _shapes(batches[0]):
          break
        batches.append(batch)
      count = len(batches)
      strengths = [strength(i) for i in range(step, step + count)]
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        if train_steps:
          state, metrics = _dispatch(
            train_steps,
            state,
            batches,
            strengths,
            mesh=mesh,
            key=key,
            room=room,
            full_graph=full_graph,
          )
        else:
          state, metrics = train_step(
            state,
            place_batch(batches[0], mesh, full_graph=full_graph),
            key,
            place_strength(strengths[0], mesh),
          )
      step += count
      for hook in hooks:
        hook(step, state, metrics)
  return state


def _shapes(batch):
  return {name: array.shape for name, array in batch.items()}


def _comes_between(step, strength, hooks):
  """Whether ``step`` must be the first of a dispatch."""
  changes_program = (strength(step) is None) != (strength(step - 1) is None)
  return changes_program or any(hook.due(step) for hook in hooks)


def _dispatch(
  train_steps, state, batches, strengths, *, mesh, key, room, full_graph
):
  """Takes a step with each batch; what ``room`` is left holds the last one."""
  count = len(batches)
  batches = batches + batches[-1:] * (room - count)
  stacked = {
    name: np.stack([batch[name] for batch in batches]) for name in batches[0]
  }
  if strengths[0] is None:
    strengths = None
  else:
    strengths = np.array(strengths + strengths[-1:] * (room - count))
  return train_steps(
    state,
    place_batch(stacked, mesh, stacked=True, full_graph=full_graph),
    key,
    replicate(np.int32(count), mesh),
    place_strength(strengths, mesh),
  )
