"""One update of the parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitnet_jax.layers.introspection import BitLayer, with_codes
from bitnet_jax.train.devices.gathering import gathered_at_use, shared_codes
from bitnet_jax.train.optimizer.optim import fresh_moments
from bitnet_jax.train.optimizer.sparse_table import SparseTable
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.tasks.base import Batch, Task, Totals, averages

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

  The step is not yet jitted. Randomness is ``fold_in(key, state.step)``. With
  ``accumulate_steps`` the batch is split by example into that many parts; the
  gradient is that of the mean loss over the whole batch either way. The kernels
  of ``layers`` are quantized once a step, whatever is computed with them.

  Args:
    task: loss and metrics.
    tx: the optimizer.
    learning_rate: for the metrics.
    layers: the quantizable layers of the model.
    shardings: of the parameters, see ``shared_codes`` and ``gathered_at_use``.
    accumulate_steps: number of parts of a batch.
    gradient_dtype: in which the gradients of quantized kernels are summed over
      devices; ``None`` for that of the parameters.
    reset_at: step before which the moments of the optimizer are made anew.
  """

  def gradient(params, codes, variables, batch, key, strength, weight):
    def loss(params):
      totals, new_variables = task.totals(
        gathered_at_use(with_codes(params, codes, gradient_dtype), shardings),
        variables,
        batch,
        key=key,
        deterministic=False,
        strength=strength,
      )
      return totals["loss"] / weight, (totals, new_variables)

    grads, (totals, variables) = jax.grad(loss, has_aux=True)(params)
    return grads, totals, variables

  def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    strength: jax.Array | None = None,
  ) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(key, state.step)
    weight = task.weight(batch)
    codes = {}
    if strength is None:
      codes = shared_codes(layers, state.params, shardings)
    if accumulate_steps == 1:
      grads, totals, variables = gradient(
        state.params, codes, state.variables, batch, key, strength, weight
      )
    else:
      grads, totals, variables = _accumulate(
        lambda part, key, variables: gradient(
          state.params, codes, variables, part, key, strength, weight
        ),
        state,
        batch,
        jax.random.split(key, accumulate_steps),
      )
    opt_state = state.opt_state
    if reset_at is not None:
      opt_state = jax.tree.map(
        lambda fresh, old: jnp.where(state.step == reset_at, fresh, old),
        fresh_moments(tx, opt_state, state.params),
        opt_state,
      )
    updates, opt_state = tx.update(grads, opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # Not by the sum of the parts' weights: each is 1 at least, so that a part
    # with nothing to predict has a loss.
    metrics = averages(totals | {"weight": weight}) | {
      "grad_norm": optax.tree.norm(grads),
      "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
    }
    new_state = TrainState(state.step + 1, params, opt_state, variables)
    return new_state, metrics

  return train_step


def make_train_steps(
  train_step: TrainStep, table: SparseTable | None = None
) -> TrainStep:
  """Returns ``steps(state, batches, key, count, strengths=None)``.

  It makes ``count`` steps, one after the other, without the host, and returns
  the state and the metrics of each step.

  Args:
    train_step: of one batch, see ``make_train_step``.
    table: a parameter that is updated by the rows that a step reads.

  Returns:
    A function, not yet jitted, of the state, of batches (and strengths) with a
    leading axis, and of the number of those that are used; the metrics have the
    same leading axis, with zeros for what was not used. ``count`` may vary from
    call to call without compiling again.
  """

  def train_steps(
    state: TrainState,
    batches: Batch,
    key: jax.Array,
    count: jax.Array,
    strengths: jax.Array | None = None,
  ) -> tuple[TrainState, Metrics]:
    def at(i, arrays):
      return jax.tree.map(
        lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), arrays
      )

    first = at(0, (dict(batches), strengths))
    _, metrics = jax.eval_shape(
      lambda batch, strength: train_step(state, batch, key, strength), *first
    )
    (n,) = {a.shape[0] for a in jax.tree.leaves(batches)}
    empty = jax.tree.map(lambda m: jnp.zeros((n, *m.shape), m.dtype), metrics)

    def take_step(i, carry):
      state, made, collected = carry
      batch, strength = at(i, (dict(batches), strengths))
      if table is None:
        state, metrics = train_step(state, batch, key, strength)
      else:
        state, made, metrics = table.step(
          train_step, state, made, batch, key, strength, index=i, room=n
        )
      collected = jax.tree.map(
        lambda all_of_them, one: all_of_them.at[i].set(one), collected, metrics
      )
      return state, made, collected

    made = None if table is None else table.begin(state)
    state, made, metrics = jax.lax.fori_loop(
      0, count, take_step, (state, made, empty)
    )
    if table is not None:
      state = table.finish(state, made, count=count, room=n)
    return state, metrics

  return train_steps


def _accumulate(gradient, state: TrainState, batch: Batch, keys: jax.Array):
  """Sums gradients, in float32, and totals over the parts of a batch."""
  parts = jax.tree.map(
    # Every n-th example, so that a part is spread over devices as the batch is.
    lambda a: a.reshape(-1, len(keys), *a.shape[1:]).swapaxes(0, 1),
    dict(batch),
  )

  def add(carry, part_and_key):
    grads, totals, variables = carry
    part, key = part_and_key
    more_grads, more_totals, variables = gradient(part, key, variables)
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

  Kernels with stochastic rounding are rounded to nearest under full
  quantization. Arguments are those of ``make_train_step``.
  """

  def eval_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    strength: jax.Array | None = None,
  ) -> Totals:
    codes = {}
    if strength is None:
      codes = shared_codes(layers, state.params, shardings, training=False)
    totals, _ = task.totals(
      gathered_at_use(with_codes(state.params, codes), shardings),
      state.variables,
      batch,
      key=key,
      deterministic=True,
      strength=strength,
    )
    return totals

  return eval_step
