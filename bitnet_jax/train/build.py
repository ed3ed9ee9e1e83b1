"""Builds an experiment from a config, with all checks before training."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from bitnet_jax.files import PathLike
from bitnet_jax.train.config.settings import (
  RunContext,
  Settings,
  parse_settings,
)
from bitnet_jax.train.decisions import decide
from bitnet_jax.train.decisions.decisions import Decisions
from bitnet_jax.train.devices.mesh import (
  batch_part,
  batch_shards,
  make_mesh,
)
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder import bucket, data_facts, warm_start, workdir
from bitnet_jax.train.tasks import base, distillation
from bitnet_jax.train.tasks.facts import DataFacts
from bitnet_jax.train.tasks.registry import TASKS, load_data, make_task


def build(
  config: Mapping[str, Any],
  folder: PathLike | None = None,
  devices: Sequence[jax.Device] | None = None,
  *,
  load: Callable[[Settings, RunContext], base.TaskData] = load_data,
) -> Experiment:
  """Builds an experiment, with every check that is possible before training.

  Args:
    config: nested dict, as a config file or a ``config.json`` gives it.
    folder: the workdir, where a trained vocabulary is saved; ``None`` saves
      none.
    devices: devices of the mesh; by default all there are.
    load: see ``load_data``.

  Raises:
    ValueError: for a mistake in the config or the data, naming it.
    FileNotFoundError: if the data are not there.
  """
  if folder is not None:
    folder = bucket.place(folder)
  settings = parse_settings(config, TASKS)
  rules = settings.axis_rules()
  mesh = make_mesh(**dataclasses.asdict(settings.mesh), devices=devices)
  settings.quant.make_rules()
  # Given devices are those of a topology, without processes.
  part = (0, 1) if devices else batch_part(mesh)
  earlier, teacher = find_used(settings)
  used = (earlier, None if teacher is None else teacher.run)
  context = _context(folder, mesh, part, used)
  decisions = _decisions(config, context, used)
  with decisions.loading():
    decide.of_data(decisions)
    settings = decisions.settings
    full_graph = TASKS[settings.task.name].full_graph
    settings.check_batch(1 if full_graph else batch_shards(mesh))
    data = load(settings, context)
  task = make_task(settings, data.facts)
  layers = base.find_layers(settings, task)
  decide.of_length(decisions, data.facts)
  config = decisions.resolved()
  settings = parse_settings(config, TASKS)
  settings.check_evaluation(task.metric_names, data.facts.splits)
  _warn_of_batch(settings, data.facts)
  if earlier is not None:
    warm_start.check_vocabulary(earlier, data.facts.fingerprint)
  distilled = None
  if teacher is not None:
    distilled = distillation.make_distillation(task, teacher, settings)
  total_steps = _count_steps(settings, data.facts)
  resolved = {**config, "total_steps": total_steps, "total_epochs": None}
  return Experiment(
    settings=settings,
    config=json.loads(json.dumps(resolved)),
    data=data,
    task=task,
    layers=layers,
    distillation=distilled,
    earlier=earlier,
    teacher=None if teacher is None else teacher.run,
    mesh=mesh,
    rules=rules,
    total_steps=total_steps,
  )


def find_used(
  settings: Settings,
) -> tuple[warm_start.EarlierRun | None, distillation.Teacher | None]:
  """Returns what a run starts from, and what it learns from; ``None`` for none.

  Raises:
    ValueError: if it is not there.
  """
  earlier = teacher = None
  if settings.init_from is not None:
    place = bucket.place(settings.init_from)
    earlier = warm_start.find_start(place, settings.init_mapping)
  if settings.distill.teacher is not None:
    teacher = distillation.find_teacher(bucket.place(settings.distill.teacher))
  return earlier, teacher


def _context(
  folder: pathlib.Path | None,
  mesh: Mesh,
  part: tuple[int, int],
  used: Sequence[warm_start.EarlierRun | None],
) -> RunContext:
  """Returns where the data are loaded.

  Args:
    folder: the workdir.
    mesh: the devices.
    part: see ``batch_part``.
    used: the runs whose parameters are used.
  """
  recorded = workdir.recorded_data(folder)
  return RunContext(
    folder=folder,
    shards=batch_shards(mesh),
    process_index=part[0],
    process_count=part[1],
    recorded=warm_start.content_of(recorded),
    vocabularies=warm_start.vocabularies(recorded, *used),
  )


def _decisions(
  config: Mapping[str, Any],
  context: RunContext,
  used: Sequence[warm_start.EarlierRun | None],
) -> Decisions:
  """Returns the config with what the run in the folder has decided already.

  Args:
    config: nested dict.
    context: where the data are loaded.
    used: the runs whose parameters are used.
  """
  specs = [data_facts.read_spec(run.folder) for run in used if run is not None]
  return Decisions(
    config,
    context,
    recorded=workdir.recorded_config(context.folder),
    vocabulary=next(filter(None, specs), None),
  )


def _warn_of_batch(settings: Settings, facts: DataFacts) -> None:
  """Warns of a batch that is larger than the training split."""
  if settings.data.batch_size > facts.num_examples:
    logging.warning(
      "data.batch_size is %d, more than the %d training examples of %s: a batch"
      " repeats examples, or has padding",
      settings.data.batch_size,
      facts.num_examples,
      settings.data.source,
    )


def _count_steps(settings: Settings, facts: DataFacts) -> int:
  """Returns the length of the run, which must be more than its warm-up."""
  total_steps = settings.count_steps(
    examples=facts.num_examples, batches_per_epoch=facts.batches_per_epoch
  )
  if settings.optim.warmup_steps >= total_steps:
    raise ValueError(
      f"optim.warmup_steps is {settings.optim.warmup_steps}; it must be less"
      f" than the {total_steps} steps of the run"
    )
  return total_steps
