"""Trains many cases: those that share a program by it, others by themselves.

A study calls ``train`` with all its cases, see ``blocks``.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from bitnet_jax.data.sources import registry
from bitnet_jax.programs.sweeping import blocks, worker
from bitnet_jax.programs.sweeping.blocks import Block, OnStep, Outcome
from bitnet_jax.programs.sweeping.blocks import Case as Case
from bitnet_jax.programs.sweeping.workers import Workers
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.interrupt import Interrupt

OnEnd = Callable[[Outcome], None]


def train(
  cases: Sequence[Case],
  *,
  workers: int = 1,
  program: str = "auto",
  on_end: OnEnd = lambda outcome: None,
  on_step: OnStep = lambda name, step: None,
) -> list[Outcome]:
  """Trains all cases.

  Args:
    cases: with different names.
    workers: number of processes; 1 trains in this one.
    program: a name in ``PROGRAMS``.
    on_end: called with each outcome, in this thread, as the cases end.
    on_step: called with the name of a case and the step that it is at.

  Returns:
    The outcomes, in the order of the cases.

  Raises:
    Interrupted: after SIGINT or SIGTERM.
  """
  keep_compiled()
  planned = blocks.plan(cases, workers=workers, program=program)
  found: dict[str, Outcome] = {}
  with Interrupt() as interrupt:
    interrupt.outcome = "between two cases; the same command continues"

    def end(outcome: Outcome) -> None:
      found[outcome.name] = outcome
      on_end(outcome)
      # Python may have ignored the error of a signal in a callback.
      interrupt.check()

    if workers == 1:
      trainer = blocks.Trainer()
      with registry.keeping():
        for block in planned:
          for outcome in trainer.train(block, on_step):
            end(outcome)
    else:
      _train_by_workers(planned, workers, on_step, end)
  return [found[case.name] for case in cases]


def _train_by_workers(planned, workers, on_step, end) -> None:
  """Trains blocks in processes."""

  def on_end(job, error):
    # The job of a process that has ended is incomplete.
    for outcome in (*job.outcomes, *(job.fail(error) if error else ())):
      end(outcome)

  jobs = [_Job(block, on_step) for block in planned]
  Workers(workers).run_jobs(jobs, on_end)


class _Job:
  """A block that a worker process trains."""

  def __init__(self, block: Block, on_step: OnStep):
    self._block, self._on_step = block, on_step
    self.key = block.key
    self.outcomes: list[Outcome] = []

  def message(self) -> dict[str, Any]:
    """See ``workers.Job``."""
    return {"block": dataclasses.asdict(self._block)}

  def take(self, answer: dict[str, Any]) -> None:
    """See ``workers.Job``."""
    if "outcome" in answer:
      self.outcomes.append(worker.unpacked(answer["outcome"]))
    elif "name" in answer:
      self._on_step(answer["name"], answer["step"])

  def fail(self, error: str) -> list[Outcome]:
    """Returns outcomes of the cases that the worker left without one."""
    known = {outcome.name for outcome in self.outcomes}
    return [
      Outcome(name=case.name, config=case.config, run_id="", error=error)
      for case in self._block.cases
      if case.name not in known
    ]
