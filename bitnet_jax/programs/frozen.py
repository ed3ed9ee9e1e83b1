"""Runs as frozen models: made from a checkpoint, and evaluated.

Beside the model its folder holds ``config.json`` of the run and the file of its
vocabulary, so that nothing else is needed but the data.
"""

import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitnet_jax.data.text.saved import save_vocabulary
from bitnet_jax.files import PathLike, local_path, new_folder
from bitnet_jax.inference.freeze import freeze_kernels
from bitnet_jax.inference.size import Size, measure_size
from bitnet_jax.inference.storage import load_frozen, save_frozen
from bitnet_jax.train import runner
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.devices.mesh import replicate
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder import bucket, workdir
from bitnet_jax.train.folder.outcome import make_measure
from bitnet_jax.train.state import TrainState


class FrozenRun(NamedTuple):
  """A checkpoint of a run, frozen.

  Attributes:
    experiment: of the run.
    variables: of its model, frozen.
    step: number of the checkpoint.
  """

  experiment: Experiment
  variables: dict[str, Any]
  step: int


def load_frozen_run(folder: PathLike, checkpoint: str) -> FrozenRun:
  """Freezes a checkpoint of a run.

  Args:
    folder: the workdir.
    checkpoint: "last", "best", or a step.

  Raises:
    ValueError: if there is no run or no such checkpoint, or if its kernels are
      in float, or partly still were at that step.
  """
  folder = bucket.place(folder)
  keep_compiled()
  return freeze_state(*runner.load_run(folder, checkpoint), checkpoint)


def freeze_state(
  experiment: Experiment, state: TrainState, checkpoint: str
) -> FrozenRun:
  """Freezes what was loaded; see ``load_frozen_run``."""
  step = int(state.step)
  phase_in = experiment.settings.quant.make_phase_in()
  phase_in.check_active(step, f"--checkpoint={checkpoint}")
  with experiment.activate():
    params = freeze_kernels(experiment.layers, state.params)
  return FrozenRun(experiment, {"params": params, **state.variables}, step)


def freeze_run(
  folder: PathLike, output: PathLike, checkpoint: str = "last"
) -> Size:
  """Freezes a checkpoint of a run, writes it, and checks what was written.

  Args:
    folder: the workdir.
    output: a folder that is empty, or not there.
    checkpoint: "last", "best", or a step.

  Returns:
    How large it is.

  Raises:
    FileExistsError: if there is anything in ``output``.
    ValueError: see ``load_frozen_run``.
  """
  folder = bucket.place(folder)
  output = local_path(output)
  with new_folder(output) as partial:
    experiment, variables, step = load_frozen_run(folder, checkpoint)
    shutil.copyfile(folder / workdir.CONFIG_FILE, partial / workdir.CONFIG_FILE)
    run_id = workdir.read_run_id(folder)
    record = {"run_id": run_id, "step": step}
    record |= _text_of(experiment, folder, partial)
    save_frozen(partial, variables, experiment.task.model, record)
  return measure_size(variables)


def _text_of(experiment: Experiment, folder, output) -> dict[str, Any]:
  """Keeps the vocabulary, if there is one, and says what writing needs."""
  tokenizer, data = experiment.data.tokenizer, experiment.settings.data
  if tokenizer is None:
    return {}
  kept = save_vocabulary(
    tokenizer,
    data.tokenizer,
    output,
    cache=folder,
    lowercase=data.lowercase,
  )
  return {"tokenizer": kept, "start_id": experiment.task.facts.start_id or 0}


def evaluate_frozen(folder: PathLike) -> dict[str, Any]:
  """Evaluates a frozen model on all splits of the data of its run.

  Args:
    folder: what ``freeze_run`` wrote.

  Returns:
    Run, step and metrics, also written to ``evaluation.json``.

  Raises:
    FileNotFoundError: if there is no frozen model, or no data.
    ValueError: if a file is damaged, or the data is not that of the run.
  """
  folder = local_path(folder)
  keep_compiled()
  found = load_frozen(folder)
  experiment = runner.load_experiment(folder)
  with experiment.activate():
    variables = jax.tree.map(
      lambda array: replicate(array, experiment.mesh), found.variables
    )
    params = variables.pop("params")
    step = jnp.int32(found.record["step"])
    state = TrainState(step, params, (), variables)
    measure = make_measure(experiment, experiment.data.facts.splits)
    metrics = measure(state)
  named = {key: found.record[key] for key in ("run_id", "step")}
  evaluation = {**named, "metrics": metrics}
  workdir.write_evaluation(folder, evaluation)
  return evaluation
