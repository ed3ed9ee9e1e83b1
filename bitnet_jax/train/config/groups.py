"""The smaller groups of a config, as checked options."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bitnet_jax import choices
from bitnet_jax.construct import construct
from bitnet_jax.data.splits import Cuts
from bitnet_jax.models import registry

# Fields of a model's sizes that the data decides, with stand-ins of their type.
FROM_DATA = {"num_classes": 2, "vocab_size": 2}


def check_least(group: str, options: Any, **least: float) -> None:
  """Raises a ValueError for the first field below its least value.

  Args:
    group: name of the config group, "" for none.
    options: object with the fields, each of which may be ``None``.
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
  """The keys of the group ``data`` that every task has.

  Attributes:
    source: where the examples come from; each task says what it takes.
    batch_size: examples of one update, over all devices and processes.
    eval_batch_size: examples of one evaluation step; ``None``: as batch_size.
    valid_fraction: see ``Cuts``, like the next one, and like "test_fraction",
      "split_names" and "data_dir", where a task has these keys.
    split_seed: seed of the cuts.
  """

  source: str
  batch_size: int
  eval_batch_size: int | None
  valid_fraction: float
  split_seed: int

  def __post_init__(self):
    check_least("data", self, batch_size=1, eval_batch_size=1, split_seed=0)

  @property
  def rows_of_evaluation(self) -> int:
    """Examples of one evaluation step."""
    return self.eval_batch_size or self.batch_size

  def cuts(self) -> Cuts:
    """Returns where the splits come from, as far as the keys say it."""
    names = [field.name for field in dataclasses.fields(Cuts)]
    own = {n: getattr(self, n) for n in names if hasattr(self, n)}
    return Cuts(**own)


@dataclasses.dataclass(frozen=True)
class TaskOptions:
  """The group ``task``.

  Attributes:
    name: name of the task.
    options: the other keys, in the task's own class.
  """

  name: str
  options: Any


@dataclasses.dataclass(frozen=True)
class ModelOptions:
  """The group ``model``.

  Attributes:
    name: a name in ``MODELS``.
    sizes: the other keys, checked.
  """

  name: str
  sizes: Mapping[str, Any]

  @classmethod
  def parse(
    cls, group: Any, *, task: str, models: Sequence[str]
  ) -> "ModelOptions":
    """Checks the group: the sizes, and that the task takes the model.

    Args:
      group: the keys with their values.
      task: name of the task.
      models: names of the models that it takes.
    """
    if not isinstance(group, Mapping) or "name" not in group:
      raise ValueError(f"model is {group!r}; it must be a group with a name")
    options = cls(group["name"], {k: group[k] for k in group if k != "name"})
    registry.get_family(options.name)
    if options.name not in models:
      raise ValueError(
        f"model.name is {options.name!r}, which is not for task.name {task!r};"
        f" the models for it are: {', '.join(models)}"
      )
    options.make(**FROM_DATA)
    return options

  def make(self, **from_data: Any) -> Any:
    """Returns the config of the model, in the model's own class.

    Args:
      **from_data: values for those of the fields ``FROM_DATA`` that it has.
    """
    config = registry.get_family(self.name).config
    fields = {field.name for field in dataclasses.fields(config)}
    derived = {n: value for n, value in from_data.items() if n in fields}
    return construct(config, self.sizes, group="model", **derived)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshOptions:
  """The group ``mesh``; see ``make_mesh``."""

  data: int
  fsdp: int
  tensor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
  """The group ``checkpoint``.

  Attributes:
    keep_last: number of newest checkpoints that are kept, at least 2, so that
      there is one to fall back to.
    keep_best: number of best checkpoints that are kept.
    metric: compared for "best" and early stopping, such as "valid/accuracy".
    mode: whether the "max" or the "min" of the metric is best.
  """

  keep_last: int
  keep_best: int
  metric: str
  mode: str

  def __post_init__(self):
    choices.check(self.mode, ("max", "min"), key="checkpoint.mode")
    check_least("checkpoint", self, keep_last=2, keep_best=0)

  def better(self, value: float, than: float | None) -> bool:
    """Whether ``value`` beats ``than``; anything beats ``None``."""
    if than is None:
      return True
    return value > than if self.mode == "max" else value < than


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
    steps: number of steps that are traced.
  """

  start: int | None
  steps: int

  def __post_init__(self):
    check_least("profile", self, start=1, steps=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillOptions:
  """The group ``distill``.

  Attributes:
    teacher: folder of a run of the same task; ``None`` for no distillation.
    weight: fraction of the loss that compares with the teacher.
    temperature: temperature of the distributions that are compared.
    features: paths of modules whose outputs are compared too.
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
