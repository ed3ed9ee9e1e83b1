"""The best value so far, and the options of keeping checkpoints."""

import dataclasses

from bitnet_jax import choices

MODES = ("max", "min")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
  """The group ``checkpoint`` of a config.

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
    choices.check(self.mode, MODES, key="checkpoint.mode")
    for field, least in (("keep_last", 2), ("keep_best", 0)):
      value = getattr(self, field)
      if value < least:
        raise ValueError(
          f"checkpoint.{field} is {value}; it must be at least {least}"
        )

  def better(self, value: float, than: float | None) -> bool:
    """Whether ``value`` beats ``than``; anything beats ``None``."""
    if than is None:
      return True
    return value > than if self.mode == "max" else value < than


@dataclasses.dataclass(frozen=True)
class Progress:
  """The best value of the metric after some evaluations.

  Attributes:
    best: the value; ``None`` before any evaluation.
    best_step: its step.
    stale: number of evaluations since then.
  """

  best: float | None = None
  best_step: int = 0
  stale: int = 0

  def after(
    self, step: int, value: float, options: CheckpointOptions
  ) -> "Progress":
    """Returns the progress after one more evaluation."""
    if options.better(value, self.best):
      return Progress(value, step, 0)
    return dataclasses.replace(self, stale=self.stale + 1)
