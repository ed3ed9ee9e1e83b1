"""What the host keeps of each member, and the hooks that write it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bitnet_jax.train.devices.speed import Speed
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder.metrics import (
  NonFiniteMetricError,
  SilentWriter,
  check_finite,
)
from bitnet_jax.train.folder.seals import Progress
from bitnet_jax.train.hooks import Evaluation
from bitnet_jax.train.tasks.base import Supervised


class Lines(SilentWriter):
  """Keeps the metrics of a run as ``metrics.jsonl`` has them.

  Attributes:
    lines: one a logged step.
  """

  def __init__(self):
    super().__init__()
    self.lines: list[dict[str, Any]] = []

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds metrics of a step, which never goes back."""
    if not self.lines or self.lines[-1]["step"] != step:
      self.lines.append({"step": step, "time": round(self.seconds(), 3)})
    self.lines[-1].update(metrics)


class Member:
  """One of the runs that a program trains.

  Attributes:
    name: how it is called in messages.
    experiment: its own, with its settings, config and run id.
    writer: takes its metrics.
    start: the variables of its warm start, by path; none for a fresh start.
    evaluation: its best value so far.
    error: why it ended early, if it did.
    diverged: the step whose metrics are not finite, if any.
  """

  def __init__(
    self,
    name: str,
    experiment: Experiment,
    writer: SilentWriter,
    start: Mapping[tuple[str, ...], Any],
  ):
    self.name, self.experiment, self.writer = name, experiment, writer
    self.start = start
    settings = experiment.settings
    self.evaluation = Evaluation(
      lambda state: {},
      self,
      settings.checkpoint,
      Progress(),
      eval_every=settings.eval_every,
      total_steps=experiment.total_steps,
      counted_from=settings.quant.phase_in.active_from,
    )
    self.error: str | None = None
    self.diverged: int | None = None

  def finish(
    self, task: Supervised, split: str, sums: Mapping[str, Any]
  ) -> dict[str, float]:
    """Returns the metrics of a split; none of a member that has ended.

    One whose sums have no metrics, such as a mean of squares that overflows,
    ends here.
    """
    if self.error is not None:
      return {}
    try:
      return task.finish(split, sums)
    except (ArithmeticError, ValueError) as error:
      self.error = f"{error}" or type(error).__name__
      return {}

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Checks and writes metrics of a step, unless the member has ended."""
    if self.error is not None:
      return
    try:
      check_finite(step, metrics)
    except NonFiniteMetricError as error:
      self.error, self.diverged = f"{error}", step
      raise
    self.writer.write(step, metrics)


class GroupMetrics:
  """Hook that fetches, checks and writes the metrics of every member.

  It fetches them one call late, as ``TrainMetrics`` does. A member whose
  metrics are not finite ends there, and the others continue.
  """

  def __init__(
    self,
    members: Sequence[Member],
    *,
    log_every: int,
    step: int,
    speed: Speed,
    on_step: Callable[[str, int], None],
  ):
    self._members, self._log_every = members, log_every
    self._speed, self._step, self._on_step = speed, step, on_step
    self._late: tuple[range, Any] | None = None
    speed.begin(step)

  def due(self, step: int) -> bool:
    """See ``hooks.Hook``: never, since it needs no state."""
    del step
    return False

  def __call__(self, step: int, state: Any, metrics: Any) -> None:
    """Handles the metrics of the last call, and keeps these for the next one.

    They have the axes [members], or [steps, members], with none of members
    where there is only one.
    """
    del state
    self.flush()
    self._late = (range(self._step + 1, step + 1), metrics)
    self._step = step

  def flush(self) -> None:
    """Handles the metrics of the last call."""
    if self._late is None:
      return
    steps, metrics = self._late
    self._late = None
    count = len(self._members)
    fetched = {
      f"train/{name}": np.reshape(array, (-1, count))[: len(steps)]
      for name, array in jax.device_get(metrics).items()
    }
    finite = np.all([np.isfinite(a) for a in fetched.values()], axis=0)
    for i, step in enumerate(steps):
      is_logged = step % self._log_every == 0
      if is_logged or not finite[i].all():
        values = {name: array[i] for name, array in fetched.items()}
        self._handle(step, values, is_logged=is_logged)
    for member in self._members:
      if member.error is None:
        self._on_step(member.name, steps[-1])

  def _handle(
    self, step: int, values: Mapping[str, np.ndarray], *, is_logged: bool
  ) -> None:
    """Writes the metrics of a step, or those of members that are not finite."""
    speed = self._speed.report(step) if is_logged else {}
    for i, member in enumerate(self._members):
      own = {name: float(array[i]) for name, array in values.items()}
      if is_logged or not np.isfinite([*own.values()]).all():
        _ending(member.write, step, own | speed)

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Writes metrics of another hook, a value or a list of values each."""
    self.flush()
    for i, member in enumerate(self._members):
      own = {
        name: values[i] if isinstance(values, list) else values
        for name, values in metrics.items()
      }
      _ending(member.write, step, own)


class GroupEvaluation:
  """Hook that evaluates all members, and keeps the best state of each.

  Attributes:
    best: the best states so far.
  """

  def __init__(
    self,
    members: Sequence[Member],
    train_metrics: GroupMetrics,
    evaluate: Callable[[str, Any], list[dict[str, float]]],
    keep_better: Callable[[list[bool], Any, Any], Any],
    best: Any,
  ):
    self._members, self._train_metrics = members, train_metrics
    self._evaluate, self._keep_better = evaluate, keep_better
    self.best = best

  def due(self, step: int) -> bool:
    """See ``hooks.Hook``."""
    return self._members[0].evaluation.due(step)

  def __call__(self, step: int, state: Any, metrics: Any) -> None:
    """Evaluates if it is due."""
    del metrics
    if not self.due(step):
      return
    self._train_metrics.flush()
    found = self._evaluate("valid", state)
    for member, values in zip(self._members, found, strict=True):
      if member.error is None:
        _ending(member.evaluation.take, step, values)
    if self.best is not None:
      is_best = [
        member.error is None and member.evaluation.progress.best_step == step
        for member in self._members
      ]
      if any(is_best):
        self.best = self._keep_better(is_best, state, self.best)


def _ending(write: Callable[..., None], *args: Any) -> None:
  """Writes; metrics that are not finite end the member, not the others."""
  try:
    write(*args)
  except NonFiniteMetricError:
    pass
