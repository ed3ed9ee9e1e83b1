"""The options of a run: a config, checked before any work."""

import dataclasses
import math
import pathlib
import re
from collections.abc import (
  Callable,
  Collection,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any, NamedTuple

from absl import logging

from bitnet_jax import choices
from bitnet_jax.config import DECIDED, with_stand_ins
from bitnet_jax.construct import construct
from bitnet_jax.layers.introspection import BitLayer
from bitnet_jax.quantizers.recipe import LAYER_NORM_ALL
from bitnet_jax.train.config import lengths
from bitnet_jax.train.config.groups import (
  CheckpointOptions,
  DataOptions,
  DistillOptions,
  EarlyStopping,
  MeshOptions,
  ModelOptions,
  ProfileOptions,
  TaskOptions,
  check_least,
)
from bitnet_jax.train.config.quant_options import QuantOptions
from bitnet_jax.train.optimizer.optim import OptimOptions
from bitnet_jax.train.state import AxisRules

# Fewer evaluations of a run show no trend.
_FEW = 3
# Metrics of which less is better, by the end of their names.
_LESS_IS_BETTER = ("loss", "perplexity", "bits_per_byte")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContext:
  """Placement of this process. Never affects results.

  Attributes:
    folder: folder of the run, where a vocabulary is saved; ``None`` saves none.
    shards: number of parts into which devices split a batch.
    process_index: index of this process's part of a batch.
    process_count: number of those parts.
    recorded: fingerprint of the data of the run in ``folder``; "" for none.
    vocabularies: fingerprints of the vocabularies of that run and of runs whose
      parameters are used.
    tokenizers: those that are loaded, by the keys that select them.
  """

  folder: pathlib.Path | None = None
  shards: int = 1
  process_index: int = 0
  process_count: int = 1
  recorded: str = ""
  vocabularies: frozenset[str] = frozenset()
  tokenizers: dict[Any, Any] = dataclasses.field(default_factory=dict)

  @property
  def part(self) -> dict[str, int]:
    """The arguments that select this process's part of a batch."""
    return {
      "process_index": self.process_index,
      "process_count": self.process_count,
    }


class TaskSpec(NamedTuple):
  """What ``task.name`` selects.

  Attributes:
    data_options: class of the group ``data``, a subclass of ``DataOptions``.
    task_options: class of the other keys of the group ``task``.
    load: from ``Settings`` and a ``RunContext`` to a ``TaskData``.
    task: class of the task, a subclass of ``Supervised``.
    models: names of the models that the task takes.
    full_graph: whether a batch is one graph, which every process holds, and
      which devices split by its nodes and edges.
  """

  data_options: type[DataOptions]
  task_options: type
  load: Callable[..., Any]
  task: Callable[..., Any]
  models: tuple[str, ...]
  full_graph: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """A checked config; each group is described by its own class.

  Attributes:
    seed: seed of everything random but the splits of the data.
    budget: a name in ``BUDGETS``: what the decisions about open keys aim at,
      see ``decisions``; ``None`` if no key is open.
    total_steps: length in updates; else ``None``.
    total_epochs: length in passes through the data; else ``None``.
    log_every: cadence of training metrics, in steps like the next three.
    eval_every: cadence of evaluations; 0 or ``None`` for none.
    checkpoint_every: cadence of checkpoints.
    statistics_every: cadence of code statistics; 0 or ``None`` for none.
    steps_per_dispatch: largest number of steps in one program, see
      ``loop.train``. It changes no result, except for rounding with
      ``SparseAdam``.
    evaluations: their number, from which the cadences follow that are open;
      with a budget only, else ``None``.
    init_from: folder of a run, or an Orbax checkpoint, whose parameters this
      run starts with, where it has them, see ``warm_start``; ``None`` starts
      from scratch.
    init_mapping: (pattern, name) pairs that rename its parameters, see
      ``warm_start``.
    sharding_rules: (logical axis, mesh axis or axes) pairs.
  """

  seed: int
  budget: str | None
  total_steps: int | None
  total_epochs: int | None
  log_every: int
  eval_every: int | None
  checkpoint_every: int
  statistics_every: int | None
  steps_per_dispatch: int
  evaluations: int | None
  init_from: str | None
  init_mapping: tuple[Any, ...]
  task: TaskOptions
  data: Any
  model: ModelOptions
  quant: QuantOptions
  optim: OptimOptions
  mesh: MeshOptions
  sharding_rules: tuple[Any, ...]
  checkpoint: CheckpointOptions
  early_stopping: EarlyStopping
  profile: ProfileOptions
  distill: DistillOptions

  def __post_init__(self):
    if (self.total_steps is None) == (self.total_epochs is None):
      raise ValueError(
        f"total_steps is {self.total_steps} and total_epochs is"
        f" {self.total_epochs}; give exactly one of them"
      )
    positive = ("total_steps", "total_epochs", "log_every", "checkpoint_every")
    least = dict.fromkeys((*positive, "steps_per_dispatch"), 1)
    check_least("", self, seed=0, eval_every=0, statistics_every=0, **least)
    self._check_mapping()

  def _check_mapping(self) -> None:
    if self.init_mapping and self.init_from is None:
      raise ValueError("init_mapping is set, but init_from is not")
    for pair in self.init_mapping:
      if not _are_texts(pair):
        raise ValueError(
          f"init_mapping has the entry {pair!r}; each must be a pair of texts,"
          " as in (('Dense_0', 'layer_0'),)"
        )
      try:
        re.compile(pair[0])
      except re.error as error:
        raise ValueError(
          f"init_mapping has the pattern {pair[0]!r}, which is no regular"
          f" expression: {error}"
        ) from error

  def count_steps(
    self, *, examples: int, batches_per_epoch: int | None = None
  ) -> int:
    """Returns the length of the run.

    Args:
      examples: of the training split.
      batches_per_epoch: see ``DataFacts``.
    """
    if self.total_epochs is None:
      assert self.total_steps is not None
      return self.total_steps
    if batches_per_epoch is not None:
      return self.total_epochs * batches_per_epoch
    return math.ceil(self.total_epochs * examples / self.data.batch_size)

  def axis_rules(self) -> AxisRules:
    """Returns the sharding rules in the form that Flax takes.

    Raises:
      ValueError: for an entry that is not a pair.
    """
    for rule in self.sharding_rules:
      if not isinstance(rule, tuple) or len(rule) != 2:
        raise ValueError(
          f"sharding_rules has the entry {rule!r}; each must be a pair (logical"
          " axis, mesh axis or axes)"
        )
    return self.sharding_rules

  def check_batch(self, shards: int) -> None:
    """Checks that batches split evenly over devices and accumulation.

    Args:
      shards: number of parts into which devices split a batch.

    Raises:
      ValueError: naming the batch size that does not.
    """
    data, parts = self.data, self.optim.accumulate_steps
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

  def check_evaluation(
    self, metric_names: Iterable[str], splits: Collection[str]
  ) -> None:
    """Checks that the metric and the split that the options need are there.

    Raises:
      ValueError: naming the key that needs what is missing.
    """
    names = [f"valid/{name}" for name in metric_names]
    choices.check(self.checkpoint.metric, names, key="checkpoint.metric")
    if self.eval_every and "valid" not in splits:
      raise ValueError(
        f"eval_every is {self.eval_every}, but {self.data.source} has no"
        " validation split and data.valid_fraction is 0; set one of them"
      )
    needing = {
      "checkpoint.keep_best": self.checkpoint.keep_best,
      "early_stopping.patience": self.early_stopping.patience,
    }
    for key, value in needing.items():
      if value and not self.eval_every:
        raise ValueError(
          f"{key} is {value}, which needs evaluations, but eval_every is"
          f" {self.eval_every}"
        )


def warn_of_rarely_meant(
  settings: Settings, layers: Sequence[BitLayer], *, step: int, total_steps: int
) -> None:
  """Warns of options that are valid, but rarely meant.

  Args:
    settings: the options.
    layers: the quantizable layers of the model.
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
  active_from = settings.quant.phase_in.active_from
  is_float = all(layer.recipe.is_float for layer in layers)
  if active_from > total_steps and not is_float:
    logging.warning(
      "the run ends at step %d, before quantization is fully active at step %d"
      " (quant.phase_in): the metrics are not of a quantized network, and no"
      " checkpoint is best",
      total_steps,
      active_from,
    )
  mixing = [layer for layer in layers if layer.recipe.norm == LAYER_NORM_ALL]
  if mixing:
    logging.warning(
      "the norm of %s is %r, which mixes the tokens of an example: a causal"
      " model sees later tokens, so that its loss is too low, and it cannot"
      " generate text",
      mixing[0].path,
      LAYER_NORM_ALL,
    )
  if settings.eval_every:
    for message in _doubtful_evaluations(settings, active_from, total_steps):
      logging.warning("%s", message)


def _doubtful_evaluations(
  settings: Settings, active_from: int, total_steps: int
) -> Iterator[str]:
  """Yields what is rarely meant of evaluations, from when on they count."""
  every, patience = settings.eval_every or 0, settings.early_stopping.patience
  # The last step is evaluated as well.
  count = -(-total_steps // every) - (max(active_from, 1) - 1) // every
  count = 0 if active_from > total_steps else max(count, 0)
  if count < _FEW:
    yield (
      f"eval_every is {every} in a run of {total_steps} steps: few evaluations"
      f" count ({count}, from step {active_from} on); at least {_FEW} show a"
      " trend"
    )
  if patience is not None and patience >= count:
    yield (
      f"early_stopping.patience is {patience}, which never ends this run:"
      f" {count} of its evaluations count"
    )
  metric, mode = settings.checkpoint.metric, settings.checkpoint.mode
  usual = "min" if metric.endswith(_LESS_IS_BETTER) else "max"
  if mode != usual:
    yield (
      f"checkpoint.mode is {mode!r}, so that the worst {metric} would be best;"
      f" {usual!r} is usual"
    )


def parse_settings(
  config: Mapping[str, Any], tasks: Mapping[str, TaskSpec]
) -> Settings:
  """Checks a config and returns it as options.

  Args:
    config: nested dict, as ``ConfigDict.to_dict()`` returns it, or as it is
      recorded of a run.
    tasks: the tasks by name.

  Raises:
    ValueError: naming key, value and choices of the first mistake.
  """
  config = with_stand_ins(lengths.without(config))
  config.pop(DECIDED, None)
  if "task" not in config:
    raise ValueError("task is missing")
  task = config["task"]
  if not isinstance(task, Mapping) or "name" not in task:
    raise ValueError(
      f"task is {task!r}; it must be a group with a name, one of:"
      f" {', '.join(tasks)}"
    )
  spec = choices.pick(tasks, task["name"], key="task.name")
  options = {key: value for key, value in task.items() if key != "name"}
  options = construct(spec.task_options, options, group="task")
  config["task"] = TaskOptions(task["name"], options)
  if "data" in config:
    config["data"] = construct(spec.data_options, config["data"], group="data")
  if "model" in config:
    config["model"] = ModelOptions.parse(
      config["model"], task=task["name"], models=spec.models
    )
  return construct(Settings, config, group="")


def _are_texts(pair: Any) -> bool:
  """Whether this is a pair of texts."""
  is_pair = isinstance(pair, tuple) and len(pair) == 2
  return is_pair and all(isinstance(text, str) for text in pair)
