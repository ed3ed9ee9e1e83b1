"""Trains members of a group by one program."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.train.build import find_used
from bitnet_jax.train.config.settings import parse_settings
from bitnet_jax.train.devices.mesh import place_batch
from bitnet_jax.train.evaluate import evaluate
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder.metrics import SilentWriter
from bitnet_jax.train.folder.outcome import describe
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.folder.warm_start import read_shared
from bitnet_jax.train.hooks import CodeStatistics, Timed, closing
from bitnet_jax.train.interrupt import Interrupt, Interrupted
from bitnet_jax.train.loop import place_strength, train
from bitnet_jax.train.model import EVALUATE, INIT, TRAIN
from bitnet_jax.train.optimizer.switch import measure_switch
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.sweep.batches import Batches, Stored
from bitnet_jax.train.sweep.members import (
  GroupEvaluation,
  GroupMetrics,
  Lines,
  Member,
)
from bitnet_jax.train.sweep.outcome import Outcome, named_codes
from bitnet_jax.train.sweep.program import Program
from bitnet_jax.train.tasks.distillation import make_distillation
from bitnet_jax.train.tasks.registry import TASKS

_MOST_KEPT = 2**28  # bytes of evaluation batches on the device


def shared_experiment(
  first: Experiment, config: Mapping[str, Any]
) -> Experiment:
  """Returns the experiment of a config with the data and the model of another.

  Args:
    first: experiment of a config with an equal ``sharing.key_of``.
    config: nested dict.

  Raises:
    ValueError: for a number that is out of its range, or for a run to start
      from or to learn from that does not fit.
  """
  length = {"total_steps": first.total_steps, "total_epochs": None}
  resolved = json.loads(json.dumps({**config, **length}))
  settings = parse_settings(resolved, TASKS)
  earlier, teacher = find_used(settings)
  distilled = None
  if teacher is not None:
    distilled = make_distillation(first.task, teacher, settings)
  return dataclasses.replace(
    first,
    settings=settings,
    config=resolved,
    distillation=distilled,
    earlier=earlier,
    teacher=None if teacher is None else teacher.run,
  )


class Group:
  """Configs that share a program; the data are loaded once.

  Attributes:
    experiment: of the first config.
  """

  def __init__(self, experiment: Experiment):
    """Puts the data on the device, if they fit there.

    Args:
      experiment: of the first config.
    """
    self.experiment = experiment
    with experiment.activate():
      self._stored = Stored(self.experiment)
    self._programs: dict[int, Program] = {}
    self._kept: dict[str, list[Any]] = {}

  def experiment_of(self, config: Mapping[str, Any]) -> Experiment:
    """Returns the experiment of another config of the group.

    Raises:
      ValueError: for a number that is out of its range.
    """
    return shared_experiment(self.experiment, config)

  def member(
    self, name: str, config: Mapping[str, Any], writer: SilentWriter
  ) -> Member:
    """Returns a member with the variables that it starts from.

    Raises:
      ValueError: see ``shared_experiment``.
    """
    experiment, start = self.experiment_of(config), {}
    if experiment.earlier is not None:
      start = read_shared(self.abstract_state, experiment.earlier)
    return Member(name, experiment, writer, start)

  def program(self, size: int) -> Program:
    """Returns the program of ``size`` members, which is compiled only once."""
    if size not in self._programs:
      self._programs[size] = Program(self.experiment, size)
    return self._programs[size]

  def train(
    self,
    members: Sequence[Member],
    *,
    size: int,
    interrupt: Interrupt,
    on_step: Callable[[str, int], None] = lambda name, step: None,
    origin: Origin | None = None,
  ) -> list[Outcome]:
    """Trains members by one program.

    Args:
      members: at most ``size``; if there are fewer, the last one is trained
        more than once.
      size: number of members of the program.
      interrupt: asked for signals between two dispatches.
      on_step: called with the names of members, and the steps they are at.
      origin: how the runs were requested.

    Raises:
      Interrupted: after SIGINT or SIGTERM.
    """
    with self.experiment.activate():
      run = _Run(self, members, size, on_step)
      run.train(interrupt)
      return list(run.outcomes(origin or Origin()))

  def evaluate(
    self,
    program: Program,
    split: str,
    state: TrainState,
    *,
    key: jax.Array,
    between: Callable[[], None] | None = None,
  ) -> dict[str, Any]:
    """Returns the sums of all metrics over a split, see ``evaluate``.

    Args:
      program: the program of the members.
      split: name of the split.
      state: their states, which are evaluated with the strength of their next
        update.
      key: their random keys.
      between: called before each batch; may raise an error to stop.
    """
    first = self.experiment
    step = int(jax.device_get(state.step))
    strength = first.settings.quant.phase_in.strength(step)
    return evaluate(
      program.eval_step,
      state,
      self._batches_of(split),
      mesh=first.mesh,
      key=key,
      strength=place_strength(strength, first.mesh),
      between=between,
      place=lambda batch: batch,
    )

  @functools.cached_property
  def abstract_state(self) -> TrainState:
    """Shapes, dtypes and shardings of the state of one member."""
    return self.experiment.abstract_state()

  @functools.cached_property
  def record(self) -> dict[str, Any]:
    """The record of a whole run of the first member, without its metrics."""
    first = self.experiment
    step = jnp.asarray(first.total_steps, jnp.int32)
    state = dataclasses.replace(first.abstract_state(), step=step)
    return describe(first, state, 0.0, Origin())

  def _batches_of(self, split: str) -> Iterator[Mapping[str, Any]]:
    """Yields the evaluation batches of a split, on the device."""
    if split in self._kept:
      yield from self._kept[split]
      return
    kept, size = [], 0
    first = self.experiment
    place = functools.partial(
      place_batch, mesh=first.mesh, full_graph=first.full_graph
    )
    for batch in first.data.eval_batches(split):
      size += sum(array.nbytes for array in batch.values())
      placed = place(batch)
      if size <= _MOST_KEPT:
        kept.append(placed)
      yield placed
    if size <= _MOST_KEPT:
      self._kept[split] = kept

  @property
  def stored(self) -> Stored:
    """The examples on the device, if batches are rows of them."""
    return self._stored


class _Run:
  """The training of some members of a group."""

  def __init__(
    self,
    group: Group,
    members: Sequence[Member],
    size: int,
    on_step: Callable[[str, int], None],
  ):
    self.group, self.program = group, group.program(size)
    self.members = list(members)
    last = members[-1]
    padding = [
      Member(last.name, last.experiment, SilentWriter(), last.start)
      for _ in range(size - len(members))
    ]
    self.all = [*members, *padding]
    experiments = [member.experiment for member in self.all]
    self.first = group.experiment
    settings = self.first.settings
    seeds = [e.settings.seed for e in experiments]
    self.numbers = self.program.numbers(experiments)
    self.keys = self.program.keys(seeds)
    self.batches = Batches(self.program, group.stored, experiments)
    starts = [member.start for member in self.all]
    self.state = self.program.start(self.keys[INIT], starts)
    speed = self.first.speed()
    self.metrics = GroupMetrics(
      self.all,
      log_every=settings.log_every,
      step=int(self.state.step),
      speed=speed,
      on_step=on_step,
    )
    best = None
    if settings.checkpoint.keep_best:
      best = self.program.init(self.keys[INIT])
    self.evaluation = GroupEvaluation(
      self.all, self.metrics, self.evaluate, self._keep_better, best
    )
    self.statistics = CodeStatistics(
      self.first.layers,
      self.metrics,
      statistics_every=settings.statistics_every,
      programs=self.program.statistics,
    )
    self.hooks = (
      self.metrics,
      Timed(speed, self.statistics),
      Timed(speed, self.evaluation),
    )

  def train(self, interrupt: Interrupt) -> None:
    """Trains to the end, or until no member is left."""
    settings, program = self.first.settings, self.program
    step = int(self.state.step)
    stored = self.group.stored.arrays
    self.statistics(step, self.state, None)

    def none_left() -> bool:
      return all(member.error is not None for member in self.members)

    with interrupt.deferred(), closing(self.batches):
      self.state = train(
        self.state,
        functools.partial(program.train_step, self.numbers, stored),
        self.batches,
        mesh=self.first.mesh,
        key=self.keys[TRAIN],
        strength=settings.quant.phase_in.strength,
        hooks=self.hooks,
        total_steps=self.first.total_steps,
        should_stop=lambda: interrupt.asked() or none_left(),
        train_steps=(
          functools.partial(program.train_steps, self.numbers, stored)
          if program.several
          else None
        ),
        steps_per_dispatch=settings.steps_per_dispatch,
        full_graph=False,
      )
      self.metrics.flush()
      step = int(self.state.step)
      if interrupt.received and not none_left():
        if step < self.first.total_steps:
          what = f"at step {step} of {len(self.members)} members"
          raise Interrupted(interrupt.received, what)

  def _keep_better(self, is_best, state, best):
    flags = self.program.place([np.bool_(flag) for flag in is_best])
    return self.program.keep_better(flags, state, best)

  def evaluate(self, split: str, state: TrainState) -> list[dict[str, float]]:
    """Returns the metrics of a split of each member."""
    first = self.first
    key = self.keys[EVALUATE]
    sums = self.group.evaluate(self.program, split, state, key=key)
    found: list[dict[str, float]] = []
    for i, member in enumerate(self.all):
      own = sums
      if self.program.size > 1:
        own = {name: array[i] for name, array in sums.items()}
      found.append(member.finish(first.task, split, own))
    return found

  def _measure(self, state: TrainState) -> list[dict[str, float]]:
    """Returns metrics and scores of all splits that are evaluated."""
    first, found = self.first, [dict[str, float]() for _ in self.members]
    for split in ("valid", "test"):
      if split not in first.data.facts.splits:
        continue
      for i, values in enumerate(self.evaluate(split, state)[: len(found)]):
        if first.data.score is not None and self.members[i].error is None:
          own = self.program.state_of(state, i, int(state.step))
          values = values | first.score(split, own)
        found[i] |= {f"{split}/{name}": v for name, v in values.items()}
    return found

  def outcomes(self, origin: Origin) -> Iterator[Outcome]:
    """Yields what each member came to."""
    step = int(self.state.step)
    lasts = self._measure(self.state)
    bests: list[dict[str, float]] = []
    if self.evaluation.best is not None:
      steps = [m.evaluation.progress.best_step for m in self.members]
      if any(0 < best < step for best in steps):
        bests = self._measure(self._best_state())
    shared = self._shared_record(origin)
    params = self.state.evaluated_params
    layers = jax.device_get(self.program.describe(params))
    params = {"params": params, **self.state.variables}
    variables = jax.device_get(params)
    for i, member in enumerate(self.members):
      experiment = member.experiment
      found = Outcome(
        name=member.name, config=experiment.config, run_id=experiment.run_id
      )
      if isinstance(member.writer, Lines):
        found.curves = member.writer.lines
      found.error, found.diverged = member.error, member.diverged
      if member.error is None:
        found.layers = named_codes(self.program.member(layers, i))
        found.variables = self.program.member(variables, i)
        last = {"step": step, "metrics": lasts[i]}
        result = {
          **shared,
          "run_id": found.run_id,
          "config": found.config,
          **last,
          "best": self._best(i, last, bests),
        }
        result["metrics"] = lasts[i] | self._switch(found.curves)
        found.result = result
      yield found

  def _shared_record(self, origin: Origin) -> dict[str, Any]:
    """Returns the record of the first member, with its part of the time."""
    count = len(self.members)
    seconds = self.all[0].writer.seconds() / count
    own = {"step": int(self.state.step), "wall_time_s": round(seconds, 3)}
    own |= {"members": count, **origin.describe()}
    return self.group.record | own

  def _best_state(self) -> TrainState:
    """Returns the best states as one, for an evaluation at full strength."""
    return dataclasses.replace(self.evaluation.best, step=self.state.step)

  def _best(
    self, i: int, last: dict[str, Any], bests: list[dict[str, float]]
  ) -> dict[str, Any] | None:
    """Returns step and metrics of the best state of a member."""
    progress = self.members[i].evaluation.progress
    if self.evaluation.best is None or progress.best is None:
      return None
    if progress.best_step == last["step"]:
      return last
    return {"step": progress.best_step, "metrics": bests[i]}

  def _switch(self, lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the effect of a late start of quantization on the loss."""
    start = self.first.settings.quant.phase_in.start
    return measure_switch(lines, start) if start else {}
