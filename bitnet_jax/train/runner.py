"""Runs an experiment in a folder: start, resume, stop, record.

The calls are ``run``, ``_Start.run``, ``_Start._train``, ``loop.train``.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bitnet_jax import error_log
from bitnet_jax.files import PathLike
from bitnet_jax.train import console, summary
from bitnet_jax.train.build import build
from bitnet_jax.train.config import lengths
from bitnet_jax.train.config.flags import load_config as load_config
from bitnet_jax.train.config.flags import parse_flags as parse_flags
from bitnet_jax.train.config.settings import warn_of_rarely_meant
from bitnet_jax.train.devices import multihost
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder import (
  bucket,
  data_facts,
  records,
  starts,
  workdir,
)
from bitnet_jax.train.folder.metrics import (
  MetricsWriter,
  SilentWriter,
  TrainMetrics,
)
from bitnet_jax.train.folder.outcome import (
  Evaluate,
  best_of,
  describe,
  make_measure,
  switch_of,
)
from bitnet_jax.train.folder.seals import Progress
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.folder.trained import evaluate_run as evaluate_run
from bitnet_jax.train.folder.trained import load_experiment as load_experiment
from bitnet_jax.train.folder.trained import load_model as load_model
from bitnet_jax.train.folder.trained import load_run as load_run
from bitnet_jax.train.hooks import (
  CodeStatistics,
  Evaluation,
  Hook,
  Profile,
  Saving,
  Timed,
  closing,
)
from bitnet_jax.train.interrupt import Interrupt, evaluation_goes_on, goes_on
from bitnet_jax.train.interrupt import Interrupted as Interrupted
from bitnet_jax.train.loop import train
from bitnet_jax.train.state import TrainState


def run(
  config: Mapping[str, Any],
  folder: PathLike,
  check: Callable[[Experiment], None] | None = None,
  *,
  origin: Origin | None = None,
  on_step: Callable[[int], None] | None = None,
  make: Callable[[Mapping[str, Any], pathlib.Path], Experiment] | None = None,
) -> dict[str, Any]:
  """Trains, or resumes where an earlier start in the same folder stopped.

  Caches compiled programs for the next start, see ``keep_compiled``.

  Args:
    config: nested dict; see ``settings`` for its keys.
    folder: the workdir.
    check: called before the run claims its folder; may raise a ValueError.
    origin: how the run was requested, for its records.
    on_step: called with the step at which this start begins, and with each
      step once its metrics are known.
    make: builds the experiment from config and folder, in place of ``build``.

  Returns:
    The content of ``result.json``.

  Raises:
    ValueError: for a mistake in config or data, or another run in ``folder``.
    NonFiniteMetricError: if a metric became NaN or infinite.
    Interrupted: after SIGINT or SIGTERM.
  """
  folder = bucket.place(folder)
  keep_compiled()
  error_log.keep_in(folder)
  with Interrupt() as interrupt, _locked(folder) as lock:
    experiment = multihost.primary_first(
      lambda: _build_in(make or build, config, folder)
    )
    multihost.check_agreement(
      {
        "config": experiment.config,
        "data": experiment.fingerprint,
        "versions": records.versions(),
        "commit": records.commit(),
      }
    )
    if check is not None:
      check(experiment)
    claimed = multihost.on_primary(lambda: _claim(experiment, lock))
    experiment = dataclasses.replace(experiment, config=claimed)
    with experiment.activate():
      start = _Start(experiment, folder, lock, interrupt)
      start.origin = origin or start.origin
      start.on_step = on_step
      return start.run()


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[workdir.Lock | None]:
  """Locks the folder; the primary process holds the lock for all."""
  with contextlib.ExitStack() as stack:

    def lock():
      workdir.check_is_run(folder)
      held.append(stack.enter_context(workdir.Lock(folder)))

    held: list[workdir.Lock] = []
    multihost.on_primary(lock)
    yield held[0] if held else None
    multihost.barrier("end of the run")


def _build_in(make, config, folder: pathlib.Path) -> Experiment:
  """Builds with the vocabulary that the primary process left for all."""
  if multihost.is_primary():
    experiment = make(config, folder)
    bucket.send(folder)
    return experiment
  bucket.fetch(folder)
  return make(config, folder)


def _claim(experiment: Experiment, lock: workdir.Lock | None) -> dict[str, Any]:
  """Claims the folder; returns the config, see ``workdir.claim``.

  Also records what the data decided, unless an earlier start did.
  """
  assert lock is not None
  config, fingerprint = experiment.config, experiment.fingerprint
  step = max(experiment.checkpoints(lock.folder).steps(), default=0)
  config = workdir.claim(lock.folder, config, fingerprint, step=step)
  lock.is_claimed = True
  data, options = experiment.data, experiment.settings.data
  data_facts.claim(lock.folder, data.facts, data.tokenizer, options)
  return config


class _Start:
  """One start of a run in its folder, with mesh and rules active."""

  def __init__(
    self,
    experiment: Experiment,
    folder: pathlib.Path,
    lock: workdir.Lock | None,
    interrupt: Interrupt,
  ):
    self.experiment, self.folder, self.interrupt = experiment, folder, interrupt
    self.origin = Origin()
    self.on_step: Callable[[int], None] | None = None
    self.checkpoints = experiment.checkpoints(folder)
    if lock is not None:
      self.checkpoints.check = lock.check

  def run(self) -> dict[str, Any]:
    """Restores the last checkpoint, and does what is left."""
    state, progress = self.experiment.init(), Progress()
    restored = self.checkpoints.restore_latest(state)
    if restored is None:
      state = self.experiment.start()
    else:
      state, progress = restored
      console.say(f"resuming at step {int(state.step)}")
    step = int(state.step)
    self.interrupt.outcome = goes_on(step)
    self._go_on_from(step)
    finished = multihost.on_primary(lambda: self._result_of(step))
    if finished is not None:
      console.say(f"{self.folder} holds this run, finished")
      return finished
    if console.shows_text():
      start = summary.of_start(self.experiment, f"{self.folder}", step=step)
      console.say(start)
    return self._train_and_record(state, progress)

  def _go_on_from(self, step: int) -> None:
    """Updates the config for the resumed step, and logs warnings.

    The step may be before the newest checkpoint, if that is damaged.
    """
    experiment = self.experiment
    config = lengths.until(experiment.config, step)
    if config != experiment.config:
      self.experiment = dataclasses.replace(experiment, config=config)
      if multihost.is_primary():
        workdir.write_config(self.folder, config, self.experiment.fingerprint)
    if multihost.is_primary():
      settings, total = experiment.settings, experiment.total_steps
      if step < total:
        layers = experiment.layers
        warn_of_rarely_meant(settings, layers, step=step, total_steps=total)
      lengths.warn_of_restart(settings.optim, config, step)

  def _result_of(self, step: int) -> dict[str, Any] | None:
    """Returns the result of a run that is finished at ``step``."""
    result = workdir.read_result(self.folder)
    if result is None or result["run_id"] != self.experiment.run_id:
      return None
    return result if result["step"] == step else None

  def _train(
    self, state: TrainState, progress: Progress
  ) -> tuple[TrainState, Evaluate, float]:
    """Trains to the end, or raises ``Interrupted``.

    Returns:
      The last state, what evaluates states, and the seconds that it took.
    """
    experiment, step = self.experiment, int(state.step)
    settings, total_steps = experiment.settings, experiment.total_steps
    patience = settings.early_stopping.patience
    writer = SilentWriter()
    if multihost.is_primary():
      writer = MetricsWriter(self.folder, restored_step=step)
      starts.append(self.folder, self.origin, step)
    hooks = _Hooks(self, writer, progress, step)
    if self.on_step is not None:
      self.on_step(step)
    hooks.statistics(step, state, None)

    def stopped_early() -> bool:
      stale = hooks.evaluation.progress.stale
      return patience is not None and stale >= patience

    parts = (self.checkpoints, hooks.profile, hooks.train_metrics, writer)
    with self.interrupt.deferred(), closing(*parts, experiment.data):
      state = train(
        state,
        experiment.train_step(),
        hooks.batch_at,
        mesh=experiment.mesh,
        key=experiment.train_key(),
        strength=settings.quant.phase_in.strength,
        hooks=hooks.all(),
        total_steps=total_steps,
        should_stop=lambda: self.interrupt.asked() or stopped_early(),
        train_steps=experiment.train_steps(),
        steps_per_dispatch=settings.steps_per_dispatch,
        full_graph=experiment.full_graph,
      )
      step = int(state.step)
      hooks.saving.save(step, state)
      self.checkpoints.wait()
      if step < total_steps and stopped_early():
        console.say(
          f"stopped at step {step}: no new best in {patience} evaluations"
        )
      elif step < total_steps and self.interrupt.received:
        raise Interrupted(self.interrupt.received, goes_on(step))
    return state, hooks.evaluate, writer.seconds()

  def _train_and_record(
    self, state: TrainState, progress: Progress
  ) -> dict[str, Any]:
    """Trains, measures the last and the best checkpoint, writes the result."""
    state, evaluate, seconds = self._train(state, progress)
    self.interrupt.outcome = evaluation_goes_on(int(state.step))
    self.interrupt.check()
    experiment = self.experiment
    splits = [s for s in ("valid", "test") if s in experiment.data.facts.splits]
    measure = make_measure(experiment, splits, evaluate)
    last = {"step": int(state.step), "metrics": measure(state)}
    result = describe(experiment, state, seconds, self.origin) | last
    del state  # Frees its memory for the best one.
    result["best"] = best_of(experiment, self.checkpoints, measure, last)
    if multihost.is_primary():
      result["metrics"] = last["metrics"] | switch_of(experiment, self.folder)
      self.checkpoints.check()
      workdir.write_json(self.folder / workdir.RESULT_FILE, result)
    return result


class _Hooks:
  """The hooks of a start, and what they share."""

  def __init__(
    self, start: _Start, writer: SilentWriter, progress: Progress, step: int
  ):
    experiment, settings = start.experiment, start.experiment.settings
    total_steps = experiment.total_steps
    self.speed = experiment.speed()
    self.train_metrics = TrainMetrics(
      writer,
      log_every=settings.log_every,
      batch_size=settings.data.batch_size,
      step=step,
      total_steps=total_steps,
      speed=self.speed,
      on_step=start.on_step,
    )
    self.evaluate = experiment.evaluator(start.interrupt.check)
    self.evaluation = Evaluation(
      lambda state: self.evaluate("valid", state),
      self.train_metrics,
      settings.checkpoint,
      progress,
      eval_every=settings.eval_every,
      total_steps=total_steps,
      counted_from=start.checkpoints.counted_from,
    )
    self.saving = Saving(
      start.checkpoints,
      self.evaluation,
      self.train_metrics,
      checkpoint_every=settings.checkpoint_every,
      restored_step=step,
    )
    self.statistics = CodeStatistics(
      experiment.layers,
      self.train_metrics,
      statistics_every=settings.statistics_every,
      programs=experiment.code_programs(),
    )
    self.profile = Profile(
      start.folder / "profile",
      start=settings.profile.start if multihost.is_primary() else None,
      steps=settings.profile.steps,
    )
    self._train_batch = experiment.data.train_batch

  def all(self) -> tuple[Hook, ...]:
    """Returns the hooks in the order in which they are called."""
    timed = (self.statistics, self.evaluation, self.saving)
    timed = (Timed(self.speed, hook) for hook in timed)
    return (self.train_metrics, *timed, self.profile)

  def batch_at(self, step: int) -> Mapping[str, Any]:
    """Returns the batch of a step, and counts its time as lost to data."""
    with self.speed.losing("data"):
      return self._train_batch(step)
