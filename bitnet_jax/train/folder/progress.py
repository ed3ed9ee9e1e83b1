"""What is best so far: which checkpoints are kept, and when a run gives up."""

import dataclasses

from bitnet_jax import choices

MODES = ("max", "min")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
  """What is kept; the group ``checkpoint`` of a config.

  Attributes:
    keep_last: number of newest checkpoints that are kept, at least 2, so that
      there is one to fall back to.
    keep_best: number of checkpoints that are kept for their metric.
    metric: what "best" and early stopping compare: "valid/accuracy".
    mode: "max" or "min" of the metric is best.
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
  """What early stopping and keep-best know after some evaluations.

  Attributes:
    best: best value of the metric so far; ``None`` before any evaluation.
    best_step: its step.
    stale: number of evaluations since.
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
