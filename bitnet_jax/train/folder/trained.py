"""Opens trained runs: their model only, or with their data."""

import pathlib
from typing import Any

import numpy as np

from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.files import PathLike
from bitnet_jax.train import model
from bitnet_jax.train.build import build
from bitnet_jax.train.config.settings import parse_settings
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder import bucket, data_facts, workdir
from bitnet_jax.train.folder.checkpoint import Checkpoints
from bitnet_jax.train.folder.outcome import (
  best_of,
  by_class,
  detailed_evaluator,
  make_measure,
)
from bitnet_jax.train.folder.warm_start import data_of
from bitnet_jax.train.model import ModelSetup, TrainedModel
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.registry import TASKS, make_task

# What building a model raises for facts that are not those of its data.
_DAMAGE = (
  AttributeError,
  IndexError,
  KeyError,
  OverflowError,
  TypeError,
  ValueError,
  ZeroDivisionError,
)


def load_model(folder: PathLike, checkpoint: str = "last") -> TrainedModel:
  """Loads the model of a run onto the devices of this machine, without data.

  A run that has not recorded what its data decided needs its data for that.

  Args:
    folder: the workdir.
    checkpoint: "last", "best", or a step.

  Raises:
    ValueError: if there is no run or no such checkpoint, or if a file is
      damaged, naming it.
  """
  folder = bucket.place(folder)
  _check_not_frozen(folder)
  setup, tokenizer = open_setup(folder)
  checkpoints = model.checkpoints_of(setup.settings, folder)
  step = _choose_step(checkpoints, checkpoint)
  abstract = model.abstract_variables(setup)
  return TrainedModel(
    settings=setup.settings,
    task=setup.task,
    layers=setup.layers,
    mesh=setup.mesh,
    rules=setup.rules,
    variables=checkpoints.restore_variables(step, abstract),
    tokenizer=tokenizer,
    step=step,
  )


def open_setup(folder: PathLike) -> tuple[ModelSetup, Tokenizer | None]:
  """Returns the model of a run, and its vocabulary, if any.

  A run that has not recorded what its data decided needs its data.

  Raises:
    FileNotFoundError: if it needs its data, and they are not there.
    ValueError: if there is no run, or if a file is damaged, naming it.
  """
  folder = bucket.place(folder)
  opened = open_without_data(folder)
  if opened is not None:
    return opened
  experiment = _load_with_data(folder)
  return experiment, experiment.data.tokenizer


def _load_with_data(folder: PathLike) -> Experiment:
  """Loads the experiment of a run that has not recorded what its data decided.

  Raises:
    FileNotFoundError: if the data is not there, saying why it is needed.
    ValueError: see ``load_experiment``.
  """
  try:
    return load_experiment(folder)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f"{error}; the run {folder} has no {data_facts.FACTS_FILE}, so its model"
      " needs the data that it was trained on"
    ) from error


def open_without_data(
  folder: PathLike,
) -> tuple[ModelSetup, Tokenizer | None] | None:
  """Returns the model of a run from its config and the facts of its data.

  Returns:
    The model and its vocabulary, if any; ``None`` for a run that has not
    recorded the facts.

  Raises:
    ValueError: if a file is damaged or does not fit the others, naming it.
  """
  folder = bucket.place(folder)
  config, fingerprint = workdir.read_run(folder)
  recorded = data_facts.read(folder)
  if recorded is None:
    return None
  path = folder / data_facts.FACTS_FILE
  found, expected = recorded.facts.fingerprint, data_of(fingerprint)
  if found != expected:
    raise workdir.WorkdirError(
      f"{path} is of other data than the run: fingerprint is {found!r}, not"
      f" {expected!r}"
    )
  settings = parse_settings(config, TASKS)
  try:
    task = make_task(settings, recorded.facts)
    layers = base.find_layers(settings, task)
  except _DAMAGE as error:
    raise workdir.WorkdirError(
      f"{path} does not fit {workdir.CONFIG_FILE}: {error!r:.500}"
    ) from error
  setup = ModelSetup(
    settings=settings,
    task=task,
    layers=layers,
    mesh=model.mesh_of_this_machine(settings.mesh),
    rules=settings.axis_rules(),
  )
  return setup, data_facts.read_tokenizer(folder, recorded)


def evaluate_run(
  folder: PathLike,
  checkpoint: str = "last",
  confusions: dict[str, np.ndarray] | None = None,
) -> dict[str, Any]:
  """Evaluates a checkpoint of a run on all its splits.

  Args:
    folder: the workdir.
    checkpoint: "last", "best", or a step.
    confusions: filled with the confusion matrix of each split, see
      ``detailed_evaluator``.

  Returns:
    Run, step and metrics, those of the best checkpoint, see ``best_of``, and
    figures for each class; also written to ``evaluation.json``.

  Raises:
    ValueError: if there is no run or no such checkpoint, or if it is damaged.
  """
  folder = bucket.place(folder)
  keep_compiled()
  experiment, state = load_run(folder, checkpoint)
  checkpoints = experiment.checkpoints(folder)
  confusions = {} if confusions is None else confusions
  measure = make_measure(
    experiment,
    experiment.data.facts.splits,
    detailed_evaluator(experiment, confusions),
  )
  with experiment.activate():
    found = {"step": int(state.step), "metrics": measure(state)}
    del state
    best = best_of(experiment, checkpoints, measure, found)
  run_id = workdir.read_run_id(folder)
  evaluation = {"run_id": run_id, **found, "best": best}
  evaluation |= by_class(experiment, confusions)
  workdir.write_evaluation(folder, evaluation)
  return evaluation


def load_run(
  folder: PathLike, checkpoint: str = "last"
) -> tuple[Experiment, TrainState]:
  """Returns the experiment of a run and the state of a checkpoint of it.

  Args:
    folder: the workdir.
    checkpoint: "last", "best", or a step.

  Raises:
    ValueError: if there is no run or no such checkpoint, if it is damaged, or
      if the data is not that of the run.
  """
  folder = bucket.place(folder)
  _check_not_frozen(folder)
  experiment = load_experiment(folder)
  checkpoints = experiment.checkpoints(folder)
  step = _choose_step(checkpoints, checkpoint)
  with experiment.activate():
    return experiment, checkpoints.restore(step, experiment.abstract_state())


def load_experiment(folder: PathLike) -> Experiment:
  """Returns the experiment whose config a folder holds.

  Raises:
    ValueError: if there is no config, or if the data is not that of the run.
  """
  folder = bucket.place(folder)
  config, fingerprint = workdir.read_run(folder)
  # The runs that it started with or learned from need not be there any more.
  distill = {**config["distill"], "teacher": None}
  alone = {"init_from": None, "init_mapping": (), "distill": distill}
  experiment = build({**config, **alone}, folder)
  found, expected = experiment.fingerprint, data_of(fingerprint)
  if found != expected:
    raise ValueError(
      f"data.source is {config['data']['source']!r}, whose content is not what"
      f" the run was trained on: {found}, not {expected}"
    )
  return experiment


def _check_not_frozen(folder: pathlib.Path) -> None:
  if (folder / workdir.FROZEN_FILE).exists():
    raise ValueError(f"{folder} holds a frozen model: give it as --frozen")


def _choose_step(checkpoints: Checkpoints, checkpoint: str) -> int:
  steps = checkpoints.steps()
  if not steps:
    raise ValueError(
      f"{checkpoints.directory} holds no checkpoint; a run saves the first one"
      " after checkpoint_every steps"
    )
  if checkpoint == "last":
    return steps[-1]
  best = checkpoints.best_step()
  if checkpoint == "best" and best is not None:
    return best
  if checkpoint.isdecimal() and int(checkpoint) in steps:
    return int(checkpoint)
  if checkpoint == "best":
    raise ValueError(
      f"--checkpoint=best: of the steps in {checkpoints.directory},"
      f" {', '.join(map(str, steps))}, none was evaluated under full"
      f" quantization (from step {checkpoints.counted_from} on)"
    )
  there = ["last", *([] if best is None else ["best"]), *map(str, steps)]
  raise ValueError(
    f"--checkpoint={checkpoint} is not one of: {', '.join(there)}"
  )
