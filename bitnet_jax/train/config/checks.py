"""What of a config must fit its data and its devices, and what rarely does."""

from absl import logging

from bitnet_jax import choices
from bitnet_jax.train.config.settings import Settings
from bitnet_jax.train.tasks.base import Problem


def check_evaluation(settings: Settings, problem: Problem) -> None:
  """Checks that what is evaluated, and for what, is there."""
  metric = settings.checkpoint.metric
  names = [f"valid/{name}" for name in problem.metric_names]
  choices.check(metric, names, key="checkpoint.metric")
  if settings.eval_every and "valid" not in problem.splits:
    raise ValueError(
      f"eval_every is {settings.eval_every}, but {settings.data.source} has no"
      " validation split and data.valid_fraction is 0; set one of them"
    )
  if not settings.eval_every:
    for key, value in (
      ("checkpoint.keep_best", settings.checkpoint.keep_best),
      ("early_stopping.patience", settings.early_stopping.patience),
    ):
      if value:
        raise ValueError(
          f"{key} is {value}, which needs evaluations, but eval_every is"
          f" {settings.eval_every}"
        )


# Evaluations of a run with fewer say little.
_FEW = 3
# What of a metric's name says that less of it is better.
_LESS_IS_BETTER = ("loss", "perplexity", "bits_per_byte")


def warn_of_course(
  settings: Settings, problem: Problem, *, step: int, total_steps: int
) -> None:
  """Warns of what in the course of a run is rarely meant.

  Few evaluations that count, a run that ends before quantization is in full
  force or before its patience can, a metric whose worst would be best, and
  steps to be profiled that it does not make.

  Args:
    settings: the config.
    problem: what is learned.
    step: where this start begins.
    total_steps: where it ends.
  """
  profiled = settings.profile.start
  if profiled is not None and not step < profiled < total_steps:
    logging.warning(
      "profile.start is %d, but this start goes from step %d to %d: nothing is"
      " profiled",
      profiled,
      step,
      total_steps,
    )
  in_force_from = settings.quant.make_phase_in().in_force_from
  if in_force_from > total_steps and not all(
    layer.recipe.is_float for layer in problem.layers
  ):
    logging.warning(
      "the run ends at step %d, before quantization is in full force at step"
      " %d (quant.phase_in): what is measured is not of a quantized network,"
      " and no checkpoint is best",
      total_steps,
      in_force_from,
    )
  if not settings.eval_every:
    return
  before = (max(in_force_from, 1) - 1) // settings.eval_every
  # The last step is evaluated as well.
  count = max(-(-total_steps // settings.eval_every) - before, 0)
  if in_force_from > total_steps:
    count = 0
  if count < _FEW:
    logging.warning(
      "eval_every is %d in a run of %d steps: few evaluations count (%d, from"
      " step %d on), where %d at least tell a trend",
      settings.eval_every,
      total_steps,
      count,
      in_force_from,
      _FEW,
    )
  patience = settings.early_stopping.patience
  if patience is not None and patience >= count:
    logging.warning(
      "early_stopping.patience is %d, which never ends this run: %d of its"
      " evaluations count",
      patience,
      count,
    )
  metric, mode = settings.checkpoint.metric, settings.checkpoint.mode
  wanted = "min" if metric.endswith(_LESS_IS_BETTER) else "max"
  if mode != wanted:
    logging.warning(
      "checkpoint.mode is %r, so that the worst %s would be best; %r is usual",
      mode,
      metric,
      wanted,
    )


def warn_of_batch(settings: Settings, problem: Problem) -> None:
  """Logs a batch that is larger than the training split."""
  size, count = settings.data.batch_size, problem.num_examples
  if size > count:
    logging.warning(
      "data.batch_size is %d, more than the %d training examples of %s: a batch"
      " repeats examples, or has empty places",
      size,
      count,
      settings.data.source,
    )


def check_batch(settings: Settings, shards: int) -> None:
  """Checks that batches split evenly over devices and accumulation."""
  data, parts = settings.data, settings.optim.accumulate_steps
  if data.batch_size % (shards * parts):
    raise ValueError(
      f"data.batch_size is {data.batch_size}, which is not a multiple of"
      f" {shards} (shards of the mesh) x {parts} (optim.accumulate_steps);"
      " set mesh.data to use fewer devices"
    )
  if data.rows_of_evaluation % shards:
    raise ValueError(
      f"data.eval_batch_size is {data.rows_of_evaluation}, which is not a"
      f" multiple of the {shards} shards of the mesh"
    )
