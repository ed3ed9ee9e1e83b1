"""Metrics and record of a finished run: its last and its best checkpoint."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from bitnet_jax.train.devices import multihost
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder import records
from bitnet_jax.train.folder.checkpoint import Checkpoints
from bitnet_jax.train.folder.metrics import read_metrics
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.optimizer.switch import measure_switch
from bitnet_jax.train.state import TrainState, count_params
from bitnet_jax.train.tasks import scores

Evaluate = Callable[[str, TrainState], dict[str, float]]
Measure = Callable[[TrainState], dict[str, float]]


def make_measure(
  experiment: Experiment,
  splits: Collection[str],
  evaluate: Evaluate | None = None,
) -> Measure:
  """Returns a function from a state to metrics and scores, by "split/name".

  Args:
    experiment: experiment of the run.
    splits: of the data, to measure.
    evaluate: see ``Experiment.evaluator``, if it is compiled already.
  """
  evaluate = evaluate or experiment.evaluator()

  def measure(state: TrainState) -> dict[str, float]:
    return {
      f"{split}/{name}": value
      for split in splits
      for found in (evaluate(split, state), experiment.score(split, state))
      for name, value in found.items()
    }

  return measure


def detailed_evaluator(
  experiment: Experiment, confusions: dict[str, np.ndarray]
) -> Evaluate:
  """Returns the evaluator of an experiment, which also counts confusions.

  Args:
    experiment: experiment of the run.
    confusions: filled with the confusion matrix [truth, prediction] of each
      split, when it is evaluated for the first time. Tasks without classes, or
      with very many, have none.
  """
  task = dataclasses.replace(experiment.task, detailed=True)

  def keep(split: str, sums: dict[str, Any]) -> None:
    if "confusion" in sums:
      confusions.setdefault(split, sums["confusion"])

  return dataclasses.replace(experiment, task=task).evaluator(keep=keep)


def by_class(
  experiment: Experiment, confusions: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Returns the entry "classes" of an evaluation; none without classes."""
  if not confusions:
    return {}
  names = experiment.task.facts.names_of_classes()
  return {
    "classes": {
      split: scores.by_class(confusion, names)
      for split, confusion in confusions.items()
    }
  }


def best_of(
  experiment: Experiment,
  checkpoints: Checkpoints,
  measure: Measure,
  known: dict[str, Any],
) -> dict[str, Any] | None:
  """Returns step and metrics of the best checkpoint.

  Args:
    experiment: experiment of the run.
    checkpoints: of the run.
    measure: see ``make_measure``.
    known: step and metrics of a checkpoint that is measured already.

  Returns:
    ``None`` if ``checkpoint.keep_best`` is 0, or if no evaluation counts.
  """
  if not checkpoints.options.keep_best:
    return None
  if multihost.on_primary(checkpoints.best_step) == known["step"]:
    return known
  found = checkpoints.restore_best(experiment.abstract_state())
  if found is None:
    return None
  step, state = found
  return {"step": step, "metrics": measure(state)}


def switch_of(experiment: Experiment, folder: pathlib.Path) -> dict[str, float]:
  """Returns the effect of a late start of quantization on the loss."""
  start = experiment.settings.quant.phase_in.start
  return measure_switch(read_metrics(folder), start) if start else {}


def describe(
  experiment: Experiment, state: TrainState, seconds: float, origin: Origin
) -> dict[str, Any]:
  """Returns the record of a run, without its metrics."""
  facts = experiment.data.facts
  return {
    "run_id": experiment.run_id,
    "step": int(state.step),
    "config": experiment.config,
    "versions": records.versions(),
    "commit": records.commit(),
    "device": records.device(),
    "num_params": count_params(state.params),
    "wall_time_s": round(seconds, 3),
    "examples": {name: s.examples for name, s in facts.splits.items()},
    "epochs": round(experiment.epochs(int(state.step)), 3),
    **origin.describe(),
  }
