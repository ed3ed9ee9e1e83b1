"""Freezes checkpoints of runs, and evaluates frozen models.

The folder of a frozen model also holds the run's ``config.json``, its
``data_facts.json`` and its vocabulary, so that evaluation needs only the data
besides, and prediction nothing.
"""

import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bitnet_jax.data.text.saved import save_vocabulary, spec_of
from bitnet_jax.files import PathLike, local_path, new_folder
from bitnet_jax.inference.freeze import freeze_kernels
from bitnet_jax.inference.size import Size, measure_size
from bitnet_jax.inference.storage import FrozenModel, load_frozen, save_frozen
from bitnet_jax.train import runner
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.devices.mesh import replicate
from bitnet_jax.train.folder import bucket, data_facts, workdir
from bitnet_jax.train.folder.outcome import (
  by_class,
  detailed_evaluator,
  make_measure,
)
from bitnet_jax.train.folder.trained import load_model, open_setup
from bitnet_jax.train.model import TrainedModel
from bitnet_jax.train.state import TrainState


def load_frozen_run(folder: PathLike, checkpoint: str = "last") -> TrainedModel:
  """Loads a checkpoint of a run with frozen variables.

  Args:
    folder: the workdir.
    checkpoint: "last", "best", or a step.

  Raises:
    ValueError: if there is no run or no such checkpoint, or if its kernels are
      in float, or partly still were at that step.
  """
  keep_compiled()
  return freeze_model(load_model(folder, checkpoint))


def freeze_model(found: TrainedModel) -> TrainedModel:
  """Freezes a model that was loaded; see ``load_frozen_run``."""
  phase_in = found.settings.quant.phase_in
  phase_in.check_active(found.step, f"--checkpoint={found.step}")
  with found.activate():
    params = freeze_kernels(found.layers, found.variables["params"])
  variables = {**found.variables, "params": params}
  return dataclasses.replace(found, variables=variables)


def freeze_run(
  folder: PathLike, output: PathLike, checkpoint: str = "last"
) -> Size:
  """Freezes a checkpoint of a run, writes it, reads it back and compares.

  Args:
    folder: the run folder.
    output: a folder that is empty or absent.
    checkpoint: "last", "best", or a step.

  Returns:
    The sizes of its parts.

  Raises:
    FileExistsError: if ``output`` is not empty.
    ValueError: see ``load_frozen_run``.
  """
  folder = bucket.place(folder)
  output = local_path(output)
  with new_folder(output) as partial:
    found = load_frozen_run(folder, checkpoint)
    shutil.copyfile(folder / workdir.CONFIG_FILE, partial / workdir.CONFIG_FILE)
    run_id = workdir.read_run_id(folder)
    record: dict[str, Any] = {"run_id": run_id, "step": found.step}
    record |= _text_of(found, folder, partial)
    facts, vocabulary = found.task.facts, record.get("tokenizer")
    data_facts.write(partial, data_facts.Recorded(facts, vocabulary))
    save_frozen(partial, found.variables, found.model, record)
  return measure_size(found.variables)


def _text_of(found: TrainedModel, folder, output) -> dict[str, Any]:
  """Saves the vocabulary, if any; returns the record for generation."""
  if found.tokenizer is None:
    return {}
  recorded, spec = data_facts.read(folder), found.settings.data.tokenizer
  if recorded is not None and recorded.vocabulary is not None:
    spec = spec_of(recorded.vocabulary, folder)
  entry = save_vocabulary(
    found.tokenizer,
    spec,
    output,
    cache=folder,
    lowercase=found.settings.data.lowercase,
  )
  return {"tokenizer": entry, "start_id": found.task.facts.start_id or 0}


def load_frozen_model(folder: PathLike) -> TrainedModel:
  """Loads a frozen model onto the devices of this machine, without data.

  One of an older version needs the data of its run.

  Args:
    folder: what ``freeze_run`` wrote.

  Raises:
    FileNotFoundError: if there is no frozen model.
    ValueError: if a file is damaged.
  """
  folder = local_path(folder)
  found = _load(folder)
  setup, tokenizer = open_setup(folder)
  return TrainedModel(
    settings=setup.settings,
    task=setup.task,
    layers=setup.layers,
    mesh=setup.mesh,
    rules=setup.rules,
    variables=_replicated(found.variables, setup.mesh),
    tokenizer=tokenizer,
    step=found.record["step"],
  )


def _load(folder: pathlib.Path) -> FrozenModel:
  """Loads the frozen model of a run, with errors for other folders."""
  has_model = (folder / workdir.FROZEN_FILE).exists()
  if not has_model and (folder / workdir.CONFIG_FILE).exists():
    raise FileNotFoundError(
      f"{folder} holds a run, not a frozen model: give it as --workdir"
    )
  found = load_frozen(folder)
  if "run_id" not in found.record:
    raise ValueError(
      f"{folder} holds a model that is of no run here; generate writes with it"
    )
  return found


def _replicated(variables: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
  """Returns variables on every device."""
  return jax.tree.map(lambda array: replicate(array, mesh), variables)


def evaluate_frozen(
  folder: PathLike, confusions: dict[str, np.ndarray] | None = None
) -> dict[str, Any]:
  """Evaluates a frozen model on all splits of the data of its run.

  Args:
    folder: what ``freeze_run`` wrote.
    confusions: filled with the confusion matrix of each split, see
      ``detailed_evaluator``.

  Returns:
    Run, step, metrics and figures for each class, also written to
    ``evaluation.json``.

  Raises:
    FileNotFoundError: if there is no frozen model, or no data.
    ValueError: if a file is damaged, or the data is not that of the run.
  """
  folder = local_path(folder)
  keep_compiled()
  found = _load(folder)
  experiment = runner.load_experiment(folder)
  with experiment.activate():
    variables = _replicated(found.variables, experiment.mesh)
    params = variables.pop("params")
    step = jnp.int32(found.record["step"])
    state = TrainState(step, params, (), variables)
    confusions = {} if confusions is None else confusions
    evaluator = detailed_evaluator(experiment, confusions)
    splits = experiment.data.facts.splits
    measure = make_measure(experiment, splits, evaluator)
    metrics = measure(state)
  named = {key: found.record[key] for key in ("run_id", "step")}
  evaluation = {**named, "metrics": metrics}
  evaluation |= by_class(experiment, confusions)
  workdir.write_evaluation(folder, evaluation)
  return evaluation
