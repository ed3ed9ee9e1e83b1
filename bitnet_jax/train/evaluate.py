"""Evaluates a state on the batches of a split."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bitnet_jax.train.devices.mesh import place_batch
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.tasks.base import Totals


def evaluate(
  eval_step: Callable[..., Totals],
  state: TrainState,
  batches: Iterable[Mapping[str, np.ndarray]],
  *,
  mesh: Mesh,
  key: jax.Array,
  strength: jax.Array | None = None,
  full_graph: bool = False,
  between: Callable[[], None] | None = None,
  place: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
  """Returns the sums of all metrics over ``batches``, in float64.

  Args:
    eval_step: jitted, see ``make_eval_step``.
    state: parameters and variables.
    batches: batches of the split; the last one is padded and masked.
    mesh: the devices.
    key: random key of stochastic rounding, the same for each evaluation.
    strength: strength of quantization; ``None`` is full quantization.
    full_graph: see ``place_batch``.
    between: called before each batch; may raise an error to stop.
    place: puts a batch on the devices; by default ``place_batch``.
  """
  place = place or functools.partial(
    place_batch, mesh=mesh, full_graph=full_graph
  )
  sums: dict[str, Any] = {}
  late: Totals = {}
  for batch in batches:
    if between is not None:
      between()
    totals = eval_step(state, place(batch), key, strength)
    _add(sums, late)  # Fetched one batch late, to keep the device busy.
    late = totals
  _add(sums, late)
  return sums


def _add(sums: dict[str, Any], totals: Totals) -> None:
  for name, total in jax.device_get(totals).items():
    sums[name] = sums.get(name, 0.0) + np.asarray(total, np.float64)
