"""What of a config must fit its data and its devices."""

from bitnet_jax import choices
from bitnet_jax.train.settings import Settings
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
