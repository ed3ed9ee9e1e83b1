"""Metrics over a whole split."""

from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from bitnet_jax.train.sharding import place_batch
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.tasks import Totals, averages


def evaluate(
  eval_step: Callable[..., Totals],
  state: TrainState,
  batches: Iterable[Mapping[str, np.ndarray]],
  *,
  mesh: Mesh,
  key: jax.Array,
  strength: jax.Array | None = None,
) -> dict[str, float]:
  """Returns the averages of all metrics over ``batches``.

  Args:
    eval_step: jitted, see ``make_eval_step``.
    state: parameters and variables.
    batches: the split, its last batch padded and masked.
    mesh: where the batches go.
    key: for stochastic rounding, the same for each evaluation.
    strength: share of quantization in force.
  """
  sums: dict[str, float] = {}
  late: Totals = {}
  for batch in batches:
    totals = eval_step(state, place_batch(batch, mesh), key, strength)
    _add(sums, late)  # Fetched late, so that the device is never idle.
    late = totals
  _add(sums, late)
  return averages(sums)


def _add(sums: dict[str, float], totals: Totals) -> None:
  for name, total in jax.device_get(totals).items():
    sums[name] = sums.get(name, 0.0) + float(total)
