"""Adam for a table of which a step reads few rows, without the other rows.

Adam moves a row also at steps that do not read it, because its moments decay
slowly: a step costs several passes over the table and both moments, however few
rows it reads. But the value of a row matters only when the row is read. So,
within a dispatch of several steps, a step takes the rows that it reads, applies
the updates that they missed, and continues with a table of these rows alone. At
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
class SparseTable:
  """How one parameter is updated by the rows that a step reads.

  A batch names them in "rows": distinct and ascending, and filled up with
  numbers from the length of the table on. The task takes a batch without "rows"
  together with a table of just these rows.

  Attributes:
    name: of the parameter, float32 [length, width], at the top of the model.
    learning_rate: by the number of updates made.
    b1: see Adam, like the next two.
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
  ) -> "SparseTable | None":
    """Returns the update that an optimizer makes.

    ``None`` if it cannot be made by rows, because they decay.
    """
    if options.name != "adam" and (
      options.weight_decay
      or (options.schedule == "two_stage" and options.second_weight_decay)
    ):
      return None
    return cls(
      name=name,
      learning_rate=learning_rate_schedule(options, total_steps),
      b1=options.b1,
      b2=options.b2,
      eps=options.eps,
    )

  def begin(self, state: TrainState) -> jax.Array:
    """Returns which steps of a dispatch each row has made, int32 [length]."""
    length = state.params[self.name].shape[0]
    return jnp.zeros(length, jnp.int32)

  def step(
    self,
    train_step: Any,
    state: TrainState,
    made: jax.Array,
    batch: Mapping[str, jax.Array],
    *args: Any,
    index: jax.Array,
    room: int,
  ) -> tuple[TrainState, jax.Array, Any]:
    """Makes one step of a dispatch.

    Args:
      train_step: see ``make_train_step``.
      state: what the step before left; rows may lag behind.
      made: how many steps of the dispatch each row has made.
      batch: with "rows".
      *args: for ``train_step``.
      index: of the step in the dispatch.
      room: how many steps it may have.

    Returns:
      The state, how many steps each row has made, and the metrics.
    """
    rows = batch["rows"]
    others = {name: a for name, a in batch.items() if name != "rows"}
    whole = self._leaves(state)
    read = [leaf.at[rows].get(mode="clip") for leaf in (*whole, made)]
    first = state.step - index
    parts = self._catch_up(*read, until=index, first=first, room=room)
    state, metrics = train_step(self._replace(state, parts), others, *args)

    def write(leaf, part):
      options = {"unique_indices": True, "indices_are_sorted": True}
      return leaf.at[rows].set(part, mode="drop", **options)

    whole = list(map(write, whole, self._leaves(state)))
    made = write(made, index + 1)
    return self._replace(state, whole), made, metrics

  def finish(
    self, state: TrainState, made: jax.Array, *, count: jax.Array, room: int
  ) -> TrainState:
    """Returns the state with all rows having made ``count`` steps."""
    length, width = state.params[self.name].shape
    chunk = min(length, max(1, _AT_ONCE // width))
    first = state.step - count

    def catch_up(i, leaves):
      # The last chunk begins early; rows that were there already stay.
      start = jnp.minimum(i * chunk, length - chunk)
      parts = [
        jax.lax.dynamic_slice_in_dim(leaf, start, chunk) for leaf in leaves
      ]
      # Copied out first, so that the table can be changed in its place.
      parts = jax.lax.optimization_barrier(parts)
      parts = self._catch_up(*parts, until=count, first=first, room=room)
      parts = (*parts, jnp.full(chunk, count))
      return [
        jax.lax.dynamic_update_slice_in_dim(leaf, part, start, 0)
        for leaf, part in zip(leaves, parts, strict=True)
      ]

    leaves = [*self._leaves(state), made]
    leaves = jax.lax.fori_loop(0, -(-length // chunk), catch_up, leaves)
    return self._replace(state, leaves[:-1])

  def _catch_up(self, table, mu, nu, made, *, until, first, room):
    """Makes the steps from ``made`` to ``until``, whose gradients are zero.

    After n of them the first moment is mu b1^n and the second nu b2^n; hence
    all that a parameter moves by is mu times a sum of terms a / (sqrt(nu) c +
    eps), one a step, where a and c are the same for a whole row.

    Args:
      table: rows of the parameter.
      mu: their first moments.
      nu: their second moments.
      made: how many steps of the dispatch each row has made.
      until: how many it is to have made.
      first: number of updates made before the dispatch.
      room: how many steps the dispatch may have.
    """
    steps = jnp.arange(room)[None]
    n = steps + 1 - made[:, None]
    missed = (n > 0) & (steps < until)
    n = jnp.maximum(n, 0)
    count = first + steps + 1
    rates = jnp.broadcast_to(self.learning_rate(first + steps), (1, room))
    a = jnp.where(missed, rates * self.b1**n / (1 - self.b1**count), 0)
    c = jnp.sqrt(self.b2**n / (1 - self.b2**count))
    lag = until - made[:, None]
    # Else they would be computed again for every element of a row.
    scales = jax.lax.optimization_barrier((a, c, self.b1**lag, self.b2**lag))
    a, c, mu_scale, nu_scale = scales
    moved = mu * _sum_of_quotients(a, c, jnp.sqrt(nu), self.eps)
    return table - moved, mu * mu_scale, nu * nu_scale

  def _leaves(self, state):
    """Returns the table and its moments."""
    mu = optax.tree.get(state.opt_state, "mu")
    nu = optax.tree.get(state.opt_state, "nu")
    return [tree[self.name] for tree in (state.params, mu, nu)]

  def _replace(self, state, leaves):
    """Returns the state with another table and other moments."""
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
