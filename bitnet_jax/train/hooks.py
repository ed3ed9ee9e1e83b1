"""Hooks of the training loop, called as ``hook(step, state, metrics)``.

Steps count updates: a hook sees ``step`` 1 after the first one.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
from absl import logging

from bitnet_jax.layers.introspection import BitLayer
from bitnet_jax.ops import statistics
from bitnet_jax.train.config.groups import CheckpointOptions
from bitnet_jax.train.devices.speed import Speed
from bitnet_jax.train.folder.checkpoint import Checkpoints
from bitnet_jax.train.folder.metrics import TrainMetrics
from bitnet_jax.train.folder.seals import Progress
from bitnet_jax.train.interrupt import Interrupted
from bitnet_jax.train.state import TrainState


class Written(Protocol):
  """What takes the metrics of hooks, such as ``TrainMetrics``."""

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Writes metrics of a step, which never goes back."""
    ...


class Hook(Protocol):
  """A callback of the training loop, called after each dispatch."""

  def due(self, step: int) -> bool:
    """Whether it needs the state as it is right after ``step``."""
    ...

  def __call__(self, step: int, state: TrainState, metrics: Any) -> None:
    """Takes the state after ``step``, and the metrics of all steps since the
    last call.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Timed:
  """Counts the time of a hook as lost to training.

  Attributes:
    speed: the counter.
    hook: what is called.
  """

  speed: Speed
  hook: Hook

  def due(self, step: int) -> bool:
    """See ``Hook``."""
    return self.hook.due(step)

  def __call__(self, step: int, state: TrainState, metrics: Any) -> None:
    """Calls the hook."""
    with self.speed.losing("other"):
      self.hook(step, state, metrics)


class Evaluation:
  """Evaluates the validation split, and tracks the best value.

  Only evaluations under full quantization count: a network that is still in
  full precision would beat every ternary one.

  Attributes:
    progress: the best value so far.
    metrics: metrics of the last evaluation.
    step: the step of the last evaluation.
  """

  def __init__(
    self,
    evaluate: Callable[[TrainState], Mapping[str, float]],
    train_metrics: Written,
    options: CheckpointOptions,
    progress: Progress,
    *,
    eval_every: int | None,
    total_steps: int | None = None,
    counted_from: int = 0,
  ):
    self._evaluate, self._options = evaluate, options
    self._train_metrics, self._counted_from = train_metrics, counted_from
    self._every, self._last = eval_every, total_steps
    self.progress, self.metrics, self.step = progress, {}, -1

  def due(self, step: int) -> bool:
    """See ``Hook``: at the cadence, if any, and then also at the last step."""
    return bool(self._every) and (step % self._every == 0 or step == self._last)

  def __call__(self, step: int, state: TrainState, metrics: Any) -> None:
    """Evaluates if it is due; the metrics are named ``valid/...``.

    Raises:
      NonFiniteMetricError: naming step and metric.
    """
    del metrics
    if not self.due(step):
      return
    self.take(step, self._evaluate(state))

  def take(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the metrics of an evaluation, and compares it with the best.

    Raises:
      NonFiniteMetricError: naming step and metric.
    """
    self.metrics = {f"valid/{name}": value for name, value in values.items()}
    self.step = step
    self._train_metrics.write(step, self.metrics)
    if step >= self._counted_from:
      value = self.metrics[self._options.metric]
      self.progress = self.progress.after(step, value, self._options)


class Saving:
  """Saves checkpoints, at the cadence and at each new best value."""

  def __init__(
    self,
    checkpoints: Checkpoints,
    evaluation: Evaluation,
    train_metrics: TrainMetrics,
    *,
    checkpoint_every: int,
    restored_step: int,
  ):
    self._checkpoints, self._evaluation = checkpoints, evaluation
    self._train_metrics = train_metrics
    self._every, self._saved = checkpoint_every, restored_step

  def due(self, step: int) -> bool:
    """See ``Hook``; a new best is reached only where evaluation is due."""
    return step % self._every == 0

  def __call__(self, step: int, state: TrainState, metrics: Any) -> None:
    """Saves if it is due, or if this step is the new best."""
    del metrics
    keeps_best = self._checkpoints.options.keep_best > 0
    new_best = self._evaluation.progress.best_step == step and keeps_best
    if self.due(step) or new_best:
      self.save(step, state)

  def save(self, step: int, state: TrainState) -> None:
    """Saves, unless this step is saved already.

    Writes the metrics up to this step first. So a run that resumes here has
    them all, and no NaN is ever saved.
    """
    if step == self._saved:
      return
    self._train_metrics.complete()
    evaluation = self._evaluation
    self._checkpoints.save(
      step,
      state,
      progress=evaluation.progress,
      metrics=evaluation.metrics if evaluation.step == step else {},
    )
    self._saved = step


class CodePrograms(NamedTuple):
  """The programs of ``CodeStatistics``.

  Attributes:
    paths: paths of the layers with quantized kernels.
    codes: from the parameters to the codes by path.
    describe: from earlier codes and the parameters to statistics by name.
  """

  paths: tuple[str, ...]
  codes: Callable[[Any], Any]
  describe: Callable[[Any, Any], Any]

  @classmethod
  def of(
    cls,
    layers: Sequence[BitLayer],
    lift: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda f: f,
  ) -> "CodePrograms":
    """Returns the programs of a model.

    Args:
      layers: its layers.
      lift: changes a function before it is compiled, as ``jax.vmap`` does.
    """
    layers = [layer for layer in layers if layer.recipe.weights is not None]

    def quantize(params):
      return {layer.path: layer.quantize_kernel(params) for layer in layers}

    def codes(params):
      return {path: q.codes for path, q in quantize(params).items()}

    def describe(before, params):
      described = {}
      for path, q in quantize(params).items():
        values = statistics.describe_codes(q, before[path])
        described |= {f"weights/{path}/{n}": v for n, v in values.items()}
      return described

    paths = tuple(layer.path for layer in layers)
    return cls(paths, jax.jit(lift(codes)), jax.jit(lift(describe)))


class CodeStatistics:
  """Writes statistics of the codes of each ternary layer.

  ``weights/<layer>/``: ``negative_fraction``, ``zero_fraction``,
  ``positive_fraction``, the ``scale`` (mean, if there are several), and the
  ``flip_rate``, the fraction of the codes that this update changed. It depends
  on one step only, so that a resumed run writes the same numbers.
  """

  def __init__(
    self,
    layers: Sequence[BitLayer],
    train_metrics: Written,
    *,
    statistics_every: int | None,
    programs: CodePrograms | None = None,
  ):
    programs = programs or CodePrograms.of(layers)
    self._every = statistics_every if programs.paths else None
    self._train_metrics = train_metrics
    self._before: Any = None
    self._codes, self._describe = programs.codes, programs.describe

  def due(self, step: int) -> bool:
    """See ``Hook``: before and after an update that is described."""
    every = self._every
    return bool(every) and (step % every == 0 or (step + 1) % every == 0)

  def __call__(self, step: int, state: TrainState, metrics: Any) -> None:
    """Describes an update, or keeps the codes before one."""
    del metrics
    if not self._every:
      return
    if step % self._every == 0 and self._before is not None:
      described = jax.device_get(self._describe(self._before, state.params))
      values = {name: value.tolist() for name, value in described.items()}
      self._train_metrics.write(step, values)
    due = (step + 1) % self._every == 0
    self._before = self._codes(state.params) if due else None


class Profile:
  """Traces some steps with the JAX profiler, from ``start`` on."""

  def __init__(self, folder: pathlib.Path, *, start: int | None, steps: int):
    self._folder, self._tracing = folder, False
    self._first = start
    self._last = None if start is None else start + steps

  def due(self, step: int) -> bool:
    """See ``Hook``."""
    return self._first is not None and step in (self._first, self._last)

  def __call__(self, step: int, state: TrainState, metrics: Any) -> None:
    """Starts or stops the trace if it is due."""
    del state
    if self._tracing and self._last is not None and step >= self._last:
      jax.block_until_ready(metrics)
      self.close()
    if not self._tracing and step == self._first:
      jax.block_until_ready(metrics)
      jax.profiler.start_trace(str(self._folder))
      self._tracing = True

  def close(self) -> None:
    """Stops a trace that is still under way."""
    if self._tracing:
      jax.profiler.stop_trace()
      self._tracing, self._first = False, None


@contextlib.contextmanager
def closing(*parts: Any) -> Iterator[None]:
  """Closes all parts at the end, and raises the first of several errors.

  Closing may wait, so a signal that acts at once closes nothing.
  """
  errors: list[BaseException] = []
  try:
    yield
  except BaseException as error:  # Raised below, after closing.
    if isinstance(error, Interrupted) and error.at_once:
      raise
    errors.append(error)
  for part in parts:
    try:
      part.close()
    except Exception as error:
      errors.append(error)
  for error in errors[1:]:
    logging.error("another error came after it: %s", error)
  if errors:
    raise errors[0]
