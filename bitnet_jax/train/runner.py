"""Runs an experiment in a folder: start, resume, stop, record."""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tqdm

from bitnet_jax import program
from bitnet_jax.files import PathLike
from bitnet_jax.train.config import lengths
from bitnet_jax.train.config.flags import load_config as load_config
from bitnet_jax.train.config.flags import parse_flags as parse_flags
from bitnet_jax.train.config.settings import warn_of_rarely_meant
from bitnet_jax.train.devices import multihost
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.experiment import Experiment, build
from bitnet_jax.train.folder import bucket, records, workdir
from bitnet_jax.train.folder.checkpoint import Checkpoints
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
from bitnet_jax.train.folder.progress import Progress
from bitnet_jax.train.folder.trained import evaluate_run as evaluate_run
from bitnet_jax.train.folder.trained import load_experiment as load_experiment
from bitnet_jax.train.folder.trained import load_run as load_run
from bitnet_jax.train.hooks import (
  CodeStatistics,
  Evaluation,
  Every,
  Profile,
  Saving,
  Timed,
  closing,
)
from bitnet_jax.train.interrupt import Interrupt, evaluation_goes_on, goes_on
from bitnet_jax.train.interrupt import Interrupted as Interrupted
from bitnet_jax.train.loop import train
from bitnet_jax.train.state import TrainState


def run(config: Mapping[str, Any], folder: PathLike) -> dict[str, Any]:
  """Trains, or goes on where an earlier start in the same folder stopped.

  Compiled programs are kept for the next start, see ``keep_compiled``.

  Args:
    config: nested dict; see ``settings`` for its keys.
    folder: the workdir.

  Returns:
    The content of ``result.json``.

  Raises:
    ValueError: for a mistake in config or data, or another run in ``folder``.
    NonFiniteMetricError: if a metric became NaN or infinite.
    Interrupted: after SIGINT or SIGTERM.
  """
  folder = bucket.place(folder)
  keep_compiled()
  program.keep_details_in(folder)
  with Interrupt() as interrupt, _locked(folder) as lock:
    experiment = multihost.primary_first(lambda: _build_in(config, folder))
    multihost.check_agreement(
      {
        "config": experiment.config,
        "data": experiment.fingerprint,
        "versions": records.versions(),
        "commit": records.commit(),
      }
    )
    claimed = multihost.on_primary(lambda: _claim(experiment, lock))
    experiment = dataclasses.replace(experiment, config=claimed)
    with experiment.activate():
      return _run_in(experiment, folder, lock, interrupt)


def _claim(experiment: Experiment, lock: workdir.Lock | None) -> dict[str, Any]:
  """Returns the config, see ``workdir.claim``."""
  assert lock is not None
  steps = experiment.checkpoints(lock.folder).steps()
  config = workdir.claim(
    lock.folder,
    experiment.config,
    experiment.fingerprint,
    step=steps[-1] if steps else 0,
  )
  lock.is_claimed = True
  return config


def _run_in(
  experiment: Experiment,
  folder: pathlib.Path,
  lock: workdir.Lock | None,
  interrupt: Interrupt,
) -> dict[str, Any]:
  """Restores what is there, and does what is left."""
  checkpoints = experiment.checkpoints(folder)
  if lock is not None:
    checkpoints.check = lock.check
  state, progress = experiment.init(), Progress()
  restored = checkpoints.restore_latest(state)
  if restored is None:
    state = experiment.start()
  else:
    state, progress = restored
    _say(f"resuming at step {int(state.step)}")
  step = int(state.step)
  interrupt.outcome = goes_on(step)
  experiment = _from_step(experiment, folder, step)
  finished = multihost.on_primary(lambda: _finished(experiment, folder, step))
  if finished is not None:
    _say(f"{folder} holds this run, finished")
    return finished
  return _run(experiment, folder, checkpoints, state, progress, interrupt)


def _build_in(config: Mapping[str, Any], folder: pathlib.Path) -> Experiment:
  """Builds with the vocabulary that the first process left for all."""
  if multihost.is_primary():
    experiment = build(config, folder)
    bucket.send(folder)
    return experiment
  bucket.fetch(folder)
  return build(config, folder)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[workdir.Lock | None]:
  """Gives the lock of the folder, which the first process holds for all."""
  with contextlib.ExitStack() as stack:

    def lock():
      workdir.check_is_run(folder)
      held.append(stack.enter_context(workdir.Lock(folder)))

    held: list[workdir.Lock] = []
    multihost.on_primary(lock)
    yield held[0] if held else None
    multihost.barrier("end of the run")


def _from_step(
  experiment: Experiment, folder: pathlib.Path, step: int
) -> Experiment:
  """Returns the experiment, knowing where it goes on, and warns of its course.

  That may be before the newest checkpoint, if it is damaged.
  """
  config = lengths.until(experiment.config, step)
  if config != experiment.config:
    experiment = dataclasses.replace(experiment, config=config)
    if multihost.is_primary():
      workdir.write_config(folder, config, experiment.fingerprint)
  if multihost.is_primary():
    settings = experiment.settings
    total = experiment.total_steps
    if step < total:
      layers = experiment.layers
      warn_of_rarely_meant(settings, layers, step=step, total_steps=total)
    lengths.warn_of_restart(settings.optim, config, step)
  return experiment


def _run(
  experiment: Experiment,
  folder: pathlib.Path,
  checkpoints: Checkpoints,
  state: TrainState,
  progress: Progress,
  interrupt: Interrupt,
) -> dict[str, Any]:
  """Trains, see ``_train``, measures and records."""
  state, evaluate, seconds = _train(
    experiment, folder, checkpoints, state, progress, interrupt
  )
  interrupt.outcome = evaluation_goes_on(int(state.step))
  interrupt.check()
  splits = [s for s in ("valid", "test") if s in experiment.data.facts.splits]
  measure = make_measure(experiment, splits, evaluate)
  last = {"step": int(state.step), "metrics": measure(state)}
  result = describe(experiment, state, seconds) | last
  del state  # Its memory is for the best one.
  result["best"] = best_of(experiment, checkpoints, measure, last)
  if multihost.is_primary():
    result["metrics"] = last["metrics"] | switch_of(experiment, folder)
    checkpoints.check()
    workdir.write_json(folder / workdir.RESULT_FILE, result)
  return result


def _train(
  experiment: Experiment,
  folder: pathlib.Path,
  checkpoints: Checkpoints,
  state: TrainState,
  progress: Progress,
  interrupt: Interrupt,
) -> tuple[TrainState, Evaluate, float]:
  """Trains to the end, or raises ``Interrupted``.

  Returns:
    The last state, what evaluates states, and the seconds that it took.
  """
  settings, step = experiment.settings, int(state.step)
  writer: MetricsWriter | SilentWriter = SilentWriter()
  if multihost.is_primary():
    writer = MetricsWriter(folder, restored_step=step)
  speed = experiment.speed()
  train_metrics = TrainMetrics(
    writer,
    log_every=settings.log_every,
    batch_size=settings.data.batch_size,
    step=step,
    total_steps=experiment.total_steps,
    speed=speed,
  )
  evaluate = experiment.evaluator(interrupt.check)
  evaluation = Evaluation(
    lambda state: evaluate("valid", state),
    train_metrics,
    settings.checkpoint,
    progress,
    counted_from=checkpoints.counted_from,
  )
  saving = Saving(
    checkpoints,
    evaluation,
    train_metrics,
    checkpoint_every=settings.checkpoint_every,
    restored_step=step,
  )
  code_statistics = CodeStatistics(
    experiment.layers,
    train_metrics,
    statistics_every=settings.statistics_every,
  )
  code_statistics(step, state, None)
  profile = Profile(
    folder / "profile",
    start=settings.profile.start if multihost.is_primary() else None,
    steps=settings.profile.steps,
  )
  patience = settings.early_stopping.patience

  def stopped_early() -> bool:
    return patience is not None and evaluation.progress.stale >= patience

  def ended(step: int) -> bool:
    return step == experiment.total_steps or stopped_early()

  def batch_at(step: int) -> Mapping[str, Any]:
    with speed.losing("data"):
      return experiment.data.train_batch(step)

  with (
    interrupt.deferred(),
    closing(checkpoints, profile, train_metrics, writer),
  ):
    state = train(
      state,
      experiment.train_step(),
      batch_at,
      mesh=experiment.mesh,
      key=experiment.train_key(),
      strength=settings.quant.make_phase_in().strength,
      hooks=(
        train_metrics,
        Timed(speed, code_statistics),
        Timed(
          speed, Every(settings.eval_every, evaluation, experiment.total_steps)
        ),
        Timed(speed, saving),
        profile,
      ),
      total_steps=experiment.total_steps,
      should_stop=lambda: interrupt.asked() or stopped_early(),
      train_steps=experiment.train_steps(),
      steps_per_dispatch=settings.steps_per_dispatch,
      full_graph=experiment.full_graph,
    )
    step = int(state.step)
    saving.save(step, state)
    checkpoints.wait()
    if interrupt.received and not ended(step):
      raise Interrupted(interrupt.received, goes_on(step))
    if stopped_early() and step < experiment.total_steps:
      _say(f"stopped at step {step}: no new best in {patience} evaluations")
  return state, evaluate, writer.seconds()


def _say(message: str) -> None:
  if multihost.is_primary():
    tqdm.tqdm.write(bucket.with_addresses(message), file=sys.stderr)


def _finished(
  experiment: Experiment, folder: pathlib.Path, step: int
) -> dict[str, Any] | None:
  """Returns the result that is there, if nothing is left to be done."""
  result = workdir.read_result(folder)
  if result is None or result["run_id"] != experiment.run_id:
    return None
  return result if result["step"] == step else None
