"""Train and evaluation steps, as functions of state and batch."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitnet_jax.layers.introspection import BitLayer, with_codes
from bitnet_jax.train.devices.gathering import gathered_at_use, shared_codes
from bitnet_jax.train.optimizer.optim import fresh_moments
from bitnet_jax.train.optimizer.sparse_adam import SparseAdam
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.tasks.base import (
  Batch,
  Supervised,
  Task,
  Totals,
  averages,
)

Metrics = dict[str, jax.Array]
TrainStep = Callable[..., tuple[TrainState, Metrics]]


def make_train_step(
  task: Task,
  tx: optax.GradientTransformation,
  learning_rate: optax.Schedule,
  *,
  layers: Sequence[BitLayer] = (),
  shardings: Any = None,
  accumulate_steps: int = 1,
  gradient_dtype: Any = None,
  reset_at: int | None = None,
) -> TrainStep:
  """Returns ``step(state, batch, key, strength=None) -> (state, metrics)``.

  The step is not yet jitted. Randomness is ``fold_in(key, state.step)``. The
  gradient is that of the mean loss over the batch, also if ``accumulate_steps``
  splits it by example. The kernels of ``layers`` are quantized once a step.

  Args:
    task: loss and metrics.
    tx: the optimizer.
    learning_rate: schedule, for the metrics.
    layers: the quantizable layers of the model.
    shardings: shardings of the parameters, see ``shared_codes`` and
      ``gathered_at_use``.
    accumulate_steps: number of parts of a batch.
    gradient_dtype: dtype in which devices sum the gradients of quantized
      kernels; ``None`` for that of the parameters.
    reset_at: step before which the moments of the optimizer are reset.
  """

  def train_step(state: TrainState, batch: Batch, key, strength=None):
    key = jax.random.fold_in(key, state.step)
    weight = task.weight(batch)
    place = functools.partial(
      _placed,
      codes=_codes(layers, state.params, shardings, strength),
      shardings=shardings,
      gradient_dtype=gradient_dtype,
    )
    gradient = functools.partial(
      _gradient, task, place, state.params, strength, weight
    )
    grads, totals, variables = (
      gradient(batch, key, state.variables)
      if accumulate_steps == 1
      else _accumulate(gradient, state, batch, key, accumulate_steps)
    )
    opt_state = _reset(tx, state, reset_at)
    updates, opt_state = tx.update(grads, opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # Not the sum of the weights of the parts, each of which is at least 1.
    metrics = averages(totals | {"weight": weight}) | {
      "grad_norm": optax.tree.norm(grads),
      "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
    }
    return TrainState(state.step + 1, params, opt_state, variables), metrics

  return train_step


def _codes(layers, params, shardings, strength, *, training=True):
  """Returns the codes of full quantization; none while it is phased in."""
  if strength is not None:
    return {}
  return shared_codes(layers, params, shardings, training=training)


def _placed(params, *, codes, shardings, gradient_dtype=None):
  """Returns the parameters that the model takes."""
  params = with_codes(params, codes, gradient_dtype)
  return gathered_at_use(params, shardings)


def _gradient(task, place, params, strength, weight, part, key, variables):
  """Returns gradients, totals and new variables of a part of a batch."""

  def loss(params):
    totals, new_variables = task.totals(
      place(params),
      variables,
      part,
      key=key,
      deterministic=False,
      strength=strength,
    )
    return totals["loss"] / weight, (totals, new_variables)

  grads, (totals, new_variables) = jax.grad(loss, has_aux=True)(params)
  return grads, totals, new_variables


def _reset(tx: optax.GradientTransformation, state: TrainState, at: int | None):
  """Returns the optimizer state, with fresh moments at the step ``at``."""
  if at is None:
    return state.opt_state
  return jax.tree.map(
    lambda fresh, old: jnp.where(state.step == at, fresh, old),
    fresh_moments(tx, state.opt_state, state.params),
    state.opt_state,
  )


def make_train_steps(
  train_step: TrainStep, sparse: SparseAdam | None = None
) -> TrainStep:
  """Returns ``steps(state, batches, key, count, strengths=None)``.

  It takes ``count`` steps without the host, and returns the state and the
  metrics of each step.

  Args:
    train_step: step of one batch, see ``make_train_step``.
    sparse: optimizer that updates only the rows that a step reads.

  Returns:
    A function, not yet jitted. Batches and strengths have a leading axis, of
    which the first ``count`` elements are used. The metrics have the same
    leading axis, with zeros for unused batches. ``count`` may vary from call to
    call without recompilation.
  """
  # Traced once, for the shapes of the metrics and the body of the loop.
  train_step = jax.jit(train_step, inline=True)

  def train_steps(state, batches: Batch, key, count, strengths=None):
    inputs = (dict(batches), strengths)
    (n,) = {a.shape[0] for a in jax.tree.leaves(batches)}

    def take_step(i, carry):
      state, done, collected = carry
      batch, strength = _at(i, inputs)
      if sparse is None:
        state, metrics = train_step(state, batch, key, strength)
      else:
        state, done, metrics = sparse.step(
          train_step, state, done, batch, key, strength, index=i, room=n
        )
      collected = jax.tree.map(
        lambda all_of_them, one: all_of_them.at[i].set(one), collected, metrics
      )
      return state, done, collected

    _, one = jax.eval_shape(
      lambda batch, strength: train_step(state, batch, key, strength),
      *_at(0, inputs),
    )
    empty = jax.tree.map(lambda m: jnp.zeros((n, *m.shape), m.dtype), one)
    done = None if sparse is None else sparse.begin(state)
    state, done, metrics = jax.lax.fori_loop(
      0, count, take_step, (state, done, empty)
    )
    if sparse is not None:
      state = sparse.finish(state, done, count=count, room=n)
    return state, metrics

  return train_steps


def _at(i, arrays):
  """Returns element ``i`` of each array along its leading axis."""
  return jax.tree.map(
    lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), arrays
  )


def _accumulate(gradient, state: TrainState, batch: Batch, key, steps: int):
  """Sums gradients, in float32, and totals over the parts of a batch."""
  keys = jax.random.split(key, steps)
  parts = jax.tree.map(
    # Every n-th example, so that a part is split over devices like the batch.
    lambda a: a.reshape(-1, steps, *a.shape[1:]).swapaxes(0, 1),
    dict(batch),
  )

  def add(carry, part_and_key):
    grads, totals, variables = carry
    more_grads, more_totals, variables = gradient(*part_and_key, variables)
    more = jax.tree.map(lambda g: g.astype(jnp.float32), more_grads)
    grads = jax.tree.map(jnp.add, grads, more)
    return (grads, jax.tree.map(jnp.add, totals, more_totals), variables), None

  zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), state.params)
  first = jax.tree.map(lambda a: a[0], (parts, keys))
  totals = jax.eval_shape(gradient, *first, state.variables)[1]
  no_totals = jax.tree.map(lambda t: jnp.zeros(t.shape, t.dtype), totals)
  (grads, totals, variables), _ = jax.lax.scan(
    add, (zeros, no_totals, state.variables), (parts, keys)
  )
  grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, state.params)
  return grads, totals, variables


def make_eval_step(
  task: Task, *, layers: Sequence[BitLayer] = (), shardings: Any = None
) -> Callable[..., Totals]:
  """Returns ``step(state, batch, key, strength=None) -> totals``.

  It evaluates ``state.evaluated_params``. Kernels with stochastic rounding are
  rounded to nearest under full quantization. See ``make_train_step`` for the
  arguments.
  """

  def eval_step(state: TrainState, batch: Batch, key, strength=None):
    params = state.evaluated_params
    codes = _codes(layers, params, shardings, strength, training=False)
    totals, _ = task.totals(
      _placed(params, codes=codes, shardings=shardings),
      state.variables,
      batch,
      key=key,
      deterministic=True,
      strength=strength,
    )
    return totals

  return eval_step


def make_predict_step(
  task: Supervised, *, layers: Sequence[BitLayer] = ()
) -> Callable[..., Any]:
  """Returns ``step(variables, batch, key, strength=None) -> outputs``.

  The outputs of the model are those that ``make_eval_step`` sums up. Batches
  need no labels, unless the arguments of the model depend on them.
  """

  def predict_step(variables, batch: Batch, key, strength=None):
    rest = dict(variables)
    params = rest.pop("params")
    codes = _codes(layers, params, None, strength, training=False)
    outputs, _ = task.outputs(
      _placed(params, codes=codes, shardings=None),
      rest,
      batch,
      key=key,
      deterministic=True,
      strength=strength,
    )
    return outputs

  return predict_step
