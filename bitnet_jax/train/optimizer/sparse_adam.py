"""Adam for an embedding of which each step reads few rows.

Adam also moves the rows that a step does not read, because its moments decay
slowly. A step thus costs several passes over the embedding and both moments,
however few rows it reads. But the value of a row matters only when it is read.
So within a dispatch of several steps, a step applies the updates that the rows
it reads have missed, and continues with an embedding of these rows alone. At
the end of the dispatch all rows get the updates that they missed. States before
and after are those of plain Adam, except for rounding.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitnet_jax.train.optimizer.optim import (
  OptimOptions,
  learning_rate_schedule,
)
from bitnet_jax.train.state import TrainState

_TERMS = 16  # Quotients that share a division.
_AT_ONCE = 2**17  # Elements that fit the cache of a core, moments included.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseAdam:
  """Updates one parameter by the rows that each step reads.

  A batch lists them in "rows": distinct, ascending, and padded with numbers
  beyond the last row. The task takes a batch without "rows" together with an
  embedding of just these rows.

  Attributes:
    name: of the parameter, float32 [length, width], at the top of the model.
    learning_rate: by the number of updates made.
    b1: see ``OptimOptions``, like the next two.
    b2: see above.
    eps: see above.
  """

  name: str
  learning_rate: optax.Schedule
  b1: float
  b2: float
  eps: float

  @classmethod
  def make(
    cls, name: str, options: OptimOptions, total_steps: int
  ) -> "SparseAdam | None":
    """Returns the update of an optimizer; ``None`` unless it is plain Adam."""
    if not options.is_plain_adam:
      return None
    rate = learning_rate_schedule(options, total_steps)
    b1, b2, eps = options.b1, options.b2, options.eps
    return cls(name=name, learning_rate=rate, b1=b1, b2=b2, eps=eps)

  def begin(self, state: TrainState) -> jax.Array:
    """Returns the updates of each row within a dispatch, int32 [length]."""
    length = state.params[self.name].shape[0]
    return jnp.zeros(length, jnp.int32)

  def step(
    self,
    train_step: Any,
    state: TrainState,
    done: jax.Array,
    batch: Mapping[str, jax.Array],
    *args: Any,
    index: jax.Array,
    room: int,
  ) -> tuple[TrainState, jax.Array, Any]:
    """Takes one step of a dispatch.

    Args:
      train_step: see ``make_train_step``.
      state: after the step before; rows may have missed updates.
      done: number of updates of each row within the dispatch.
      batch: with "rows".
      *args: for ``train_step``.
      index: of the step in the dispatch.
      room: largest number of steps in it.

    Returns:
      The state, the updates of each row, and the metrics.
    """
    rows = batch["rows"]
    others = {name: a for name, a in batch.items() if name != "rows"}
    leaves = self._leaves(state)
    read = [leaf.at[rows].get(mode="clip") for leaf in (*leaves, done)]
    first = state.step - index
    parts = self._catch_up(*read, until=index, first=first, room=room)
    state, metrics = train_step(self._replace(state, parts), others, *args)

    def write(leaf, part):
      options = {"unique_indices": True, "indices_are_sorted": True}
      return leaf.at[rows].set(part, mode="drop", **options)

    leaves = list(map(write, leaves, self._leaves(state)))
    done = write(done, index + 1)
    return self._replace(state, leaves), done, metrics

  def finish(
    self, state: TrainState, done: jax.Array, *, count: jax.Array, room: int
  ) -> TrainState:
    """Returns the state with ``count`` updates of every row."""
    length, width = state.params[self.name].shape
    chunk = min(length, max(1, _AT_ONCE // width))
    first = state.step - count

    def catch_up(i, leaves):
      # The last chunk overlaps the one before, whose rows stay as they are.
      start = jnp.minimum(i * chunk, length - chunk)
      parts = [
        jax.lax.dynamic_slice_in_dim(leaf, start, chunk) for leaf in leaves
      ]
      # Copied out first, so that the embedding can be changed in place.
      parts = jax.lax.optimization_barrier(parts)
      parts = self._catch_up(*parts, until=count, first=first, room=room)
      parts = (*parts, jnp.full(chunk, count))
      return [
        jax.lax.dynamic_update_slice_in_dim(leaf, part, start, 0)
        for leaf, part in zip(leaves, parts, strict=True)
      ]

    leaves = [*self._leaves(state), done]
    leaves = jax.lax.fori_loop(0, -(-length // chunk), catch_up, leaves)
    return self._replace(state, leaves[:-1])

  def _catch_up(self, values, mu, nu, done, *, until, first, room):
    """Applies the updates from ``done`` to ``until``, of zero gradients.

    After n of them the first moment is mu b1^n and the second nu b2^n. So a
    parameter moves by mu times a sum of terms a / (sqrt(nu) c + eps), one a
    step, where a and c are the same for all of a row.

    Args:
      values: rows of the parameter.
      mu: their first moments.
      nu: their second moments.
      done: number of updates of each row within the dispatch.
      until: the number that it shall have.
      first: number of updates before the dispatch.
      room: largest number of steps of the dispatch.
    """
    steps = jnp.arange(room)[None]
    n = steps + 1 - done[:, None]
    missed = (n > 0) & (steps < until)
    n = jnp.maximum(n, 0)
    count = first + steps + 1
    rates = jnp.broadcast_to(self.learning_rate(first + steps), (1, room))
    a = jnp.where(missed, rates * self.b1**n / (1 - self.b1**count), 0)
    c = jnp.sqrt(self.b2**n / (1 - self.b2**count))
    lag = until - done[:, None]
    # Without it they would be computed again for every element of a row.
    scales = jax.lax.optimization_barrier((a, c, self.b1**lag, self.b2**lag))
    a, c, mu_scale, nu_scale = scales
    moved = mu * _sum_of_quotients(a, c, jnp.sqrt(nu), self.eps)
    return values - moved, mu * mu_scale, nu * nu_scale

  def _leaves(self, state):
    """Returns the parameter and its moments."""
    mu = optax.tree.get(state.opt_state, "mu")
    nu = optax.tree.get(state.opt_state, "nu")
    return [tree[self.name] for tree in (state.params, mu, nu)]

  def _replace(self, state, leaves):
    """Returns the state with another parameter and other moments."""
    mu = optax.tree.get(state.opt_state, "mu")
    nu = optax.tree.get(state.opt_state, "nu")
    params, mu, nu = (
      {**tree, self.name: leaf}
      for tree, leaf in zip((state.params, mu, nu), leaves, strict=True)
    )
    opt_state = optax.tree.set(state.opt_state, mu=mu, nu=nu)
    return state.replace(params=params, opt_state=opt_state)


def _sum_of_quotients(a, c, root, eps):
  """Returns the sum of a / (root c + eps) over the columns of ``a`` and ``c``.

  Quotients are added as fractions, with one division for many of them, since it
  costs more than four products. Their denominators are taken relative to the
  first, so that the product of ``_TERMS`` of them is in the range of float32.

  Args:
    a: [rows, terms].
    c: [rows, terms]; not rising along a row.
    root: [rows, width].
    eps: positive.
  """
  total = 0.0
  for start in range(0, a.shape[1], _TERMS):
    scale = 1 / (root * c[:, start, None] + eps)
    slope, offset = root * scale, eps * scale
    numerator, denominator = 0.0, 1.0
    for i in range(start, min(start + _TERMS, a.shape[1])):
      term = slope * c[:, i, None] + offset
      numerator = numerator * term + a[:, i, None] * denominator
      denominator = denominator * term
    total += scale * (numerator / denominator)
  return total
