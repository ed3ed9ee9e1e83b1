"""From a config to checked options: every mistake is named before any work."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bitnet_jax import choices
from bitnet_jax.construct import construct
from bitnet_jax.models import registry
from bitnet_jax.train.config.quant_options import QuantOptions
from bitnet_jax.train.folder.progress import CheckpointOptions
from bitnet_jax.train.optimizer import lengths
from bitnet_jax.train.optimizer.optim import OptimOptions
from bitnet_jax.train.state import AxisRules


def check_least(group: str, options: Any, **least: float) -> None:
  """Raises a ValueError for the first field below its least value.

  Args:
    group: name of the config group, "" for none.
    options: object with the fields; ``None`` is always well.
    **least: the least value of each field.
  """
  prefix = f"{group}." if group else ""
  for field, bound in least.items():
    value = getattr(options, field)
    if value is not None and value < bound:
      raise ValueError(
        f"{prefix}{field} is {value}; it must be at least {bound}"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
  """What the group ``data`` holds for every kind of task.

  Attributes:
    source: where the examples come from; each kind says what it takes.
    batch_size: examples of one update, over all devices and processes.
    eval_batch_size: examples of one evaluation step; ``None``: as batch_size.
  """

  source: str
  batch_size: int
  eval_batch_size: int | None

  def __post_init__(self):
    check_least("data", self, batch_size=1, eval_batch_size=1)

  @property
  def rows_of_evaluation(self) -> int:
    """Examples of one evaluation step."""
    return self.eval_batch_size or self.batch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
  """Where an experiment is built; decides nothing about what is learned.

  Attributes:
    folder: of the run, where a vocabulary is kept; ``None`` keeps none.
    shards: number of parts into which devices split a batch.
    process_index: which of the parts that processes split it into is ours.
    process_count: number of those parts.
    recorded: names the data of the run in ``folder``; "" for none.
    vocabularies: fingerprints of the vocabularies of that run and of runs whose
      parameters are used.
  """

  folder: pathlib.Path | None = None
  shards: int = 1
  process_index: int = 0
  process_count: int = 1
  recorded: str = ""
  vocabularies: frozenset[str] = frozenset()

  @property
  def part(self) -> dict[str, int]:
    """The arguments that pick this process's part of a batch."""
    return {
      "process_index": self.process_index,
      "process_count": self.process_count,
    }


class Kind(NamedTuple):
  """A kind of task, chosen by ``task.name``.

  Attributes:
    data: class of the group ``data``, of ``DataOptions``.
    task: class of the other keys of the group ``task``.
    build: from ``Settings`` and a ``Site`` to a ``Problem``.
    whole: whether a batch is one graph, which every process has, and which
      devices split by its nodes and edges.
  """

  data: type[DataOptions]
  task: type
  build: Callable[..., Any]
  whole: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshOptions:
  """The group ``mesh``; see ``make_mesh``."""

  data: int
  fsdp: int
  tensor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
  """The group ``early_stopping``.

  Attributes:
    patience: evaluations without a new best after which a run ends; ``None``
      never ends it.
  """

  patience: int | None

  def __post_init__(self):
    check_least("early_stopping", self, patience=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileOptions:
  """The group ``profile``.

  Attributes:
    start: step after which a trace starts; ``None`` for no trace.
    steps: how many steps are traced.
  """

  start: int | None
  steps: int

  def __post_init__(self):
    check_least("profile", self, start=1, steps=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillOptions:
  """The group ``distill``.

  Attributes:
    teacher: folder of a run of the same task; ``None`` learns from labels only.
    weight: share of the teacher in the loss.
    temperature: of the distributions that are compared.
    features: paths of modules of both whose outputs shall be equal too.
  """

  teacher: str | None
  weight: float
  temperature: float
  features: tuple[str, ...]

  def __post_init__(self):
    if not 0 <= self.weight <= 1:
      raise ValueError(
        f"distill.weight is {self.weight}; it must lie in [0, 1]"
      )
    if not self.temperature > 0:
      raise ValueError(
        f"distill.temperature is {self.temperature}; it must be positive"
      )


# Fields of a model's sizes that the data decides, with stand-ins of their type.
FROM_DATA = {"num_classes": 2, "vocab_size": 2}


@dataclasses.dataclass(frozen=True)
class ModelOptions:
  """The group ``model``: a name, and the sizes of that model.

  Attributes:
    name: a name in ``MODELS``.
    sizes: the other keys, checked.
  """

  name: str
  sizes: Mapping[str, Any]

  @classmethod
  def parse(cls, group: Any, *, task: str) -> "ModelOptions":
    """Checks the group: the sizes, and that the model is one for the task."""
    if not isinstance(group, Mapping) or "name" not in group:
      raise ValueError(f"model is {group!r}; it must be a group with a name")
    options = cls(group["name"], {k: group[k] for k in group if k != "name"})
    registry.check_task(options.name, task)
    options.make(**FROM_DATA)
    return options

  def make(self, **from_data: Any) -> Any:
    """Returns the sizes in the model's own class.

    Args:
      **from_data: values for those of the fields ``FROM_DATA`` that it has.
    """
    config = registry.get_family(self.name).config
    fields = {field.name for field in dataclasses.fields(config)}
    derived = {n: value for n, value in from_data.items() if n in fields}
    return construct(config, self.sizes, group="model", **derived)


@dataclasses.dataclass(frozen=True)
class TaskOptions:
  """The group ``task``: a name, and the options of that kind.

  Attributes:
    name: of the kind.
    options: the other keys, in the kind's own class.
  """

  name: str
  options: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """A whole config, checked; fields as in its groups.

  Attributes:
    seed: of everything random but the cuts of the data.
    total_steps: length in updates; else ``None``.
    total_epochs: length in passes through the data, which the task counts;
      else ``None``.
    log_every: cadence of training metrics, in steps like the next three.
    eval_every: cadence of evaluations; 0 or ``None`` for none.
    checkpoint_every: cadence of checkpoints.
    statistics_every: cadence of code statistics; 0 or ``None`` for none.
    steps_per_dispatch: how many steps at most run without the host, see
      ``loop.train``; the results are the same, but for rounding where a table
      is updated by rows (``sparse_table``).
    init_from: folder of a run whose parameters this one starts with, where it
      has them, see ``warm_start``; ``None`` starts afresh.
    task: what is learned.
    data: see its class, like the rest.
    model: name and sizes.
    quant: recipe, rules, overrides, phase-in.
    optim: optimizer and schedule.
    mesh: sizes of the mesh.
    sharding_rules: (logical axis, mesh axis or axes) pairs.
    checkpoint: what is kept.
    early_stopping: when to give up.
    profile: which steps are traced.
    distill: whom to learn from beside the labels.
  """

  seed: int
  total_steps: int | None
  total_epochs: int | None
  log_every: int
  eval_every: int | None
  checkpoint_every: int
  statistics_every: int | None
  steps_per_dispatch: int
  init_from: str | None
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
    check_least(
      "",
      self,
      seed=0,
      total_steps=1,
      total_epochs=1,
      log_every=1,
      eval_every=0,
      checkpoint_every=1,
      statistics_every=0,
      steps_per_dispatch=1,
    )

  def count_steps(
    self, *, examples: int, batches_per_epoch: int | None = None
  ) -> int:
    """Returns the length of the run.

    Args:
      examples: of the training split.
      batches_per_epoch: see ``Problem``.
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


_GROUPS = {
  "quant": QuantOptions,
  "optim": OptimOptions,
  "mesh": MeshOptions,
  "checkpoint": CheckpointOptions,
  "distill": DistillOptions,
  "early_stopping": EarlyStopping,
  "profile": ProfileOptions,
}


def parse_settings(
  config: Mapping[str, Any], kinds: Mapping[str, Kind]
) -> Settings:
  """Checks a config and returns it as options.

  Args:
    config: nested dict, as ``ConfigDict.to_dict()`` returns it, or as it is
      recorded of a run.
    kinds: the kinds of task by name.

  Raises:
    ValueError: naming key, value and choices of the first mistake.
  """
  config = lengths.without(config)
  for group, cls in _GROUPS.items():
    if group in config:
      config[group] = construct(cls, config[group], group=group)
  if "task" not in config:
    raise ValueError("task is missing")
  task = config["task"]
  if not isinstance(task, Mapping) or "name" not in task:
    raise ValueError(
      f"task is {task!r}; it must be a group with a name, one of:"
      f" {', '.join(kinds)}"
    )
  kind = choices.pick(kinds, task["name"], key="task.name")
  options = {key: value for key, value in task.items() if key != "name"}
  options = construct(kind.task, options, group="task")
  config["task"] = TaskOptions(task["name"], options)
  if "data" in config:
    config["data"] = construct(kind.data, config["data"], group="data")
  if "model" in config:
    config["model"] = ModelOptions.parse(config["model"], task=task["name"])
  return construct(Settings, config, group="")
