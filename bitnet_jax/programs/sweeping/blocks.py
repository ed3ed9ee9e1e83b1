"""Blocks of cases: those that share a program are trained by it together.

Cases that differ in numbers only, see ``sharing.key_of``, share a program: the
data are loaded once, and it is compiled once for all of them.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from bitnet_jax import choices
from bitnet_jax.ops import statistics
from bitnet_jax.programs.sweeping import members
from bitnet_jax.train import console, runner
from bitnet_jax.train.folder.metrics import NonFiniteMetricError, read_metrics
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.interrupt import Interrupt
from bitnet_jax.train.sweep import sharing
from bitnet_jax.train.sweep.members import Lines
from bitnet_jax.train.sweep.outcome import Outcome, named_codes
from bitnet_jax.train.sweep.shared import Sharing

# "auto": cases share programs; "each": every case by itself.
PROGRAMS = ("auto", "each")
OnStep = Callable[[str, int], None]
_MANY = 2  # groups for each process


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """A run to be trained.

  Attributes:
    name: how messages and its outcome name it.
    config: nested dict with every key.
    folder: where it leaves what a run leaves; ``None`` leaves nothing.
  """

  name: str
  config: Mapping[str, Any]
  folder: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
  """Cases that a process trains at a time.

  Attributes:
    cases: one, unless they share a program.
    key: what they have in common, see ``sharing.key_of``; ``None`` for a case
      that is trained by itself.
    size: number of members of the program.
  """

  cases: tuple[Case, ...]
  key: str | None = None
  size: int = 1

  @classmethod
  def parse(cls, content: Mapping[str, Any]) -> "Block":
    """Returns what ``dataclasses.asdict`` made a dict of."""
    cases = tuple(Case(**case) for case in content["cases"])
    return cls(cases=cases, key=content["key"], size=content["size"])

  @property
  def name(self) -> str:
    """Names the block in messages."""
    more = f" and {len(self.cases) - 1} more" if len(self.cases) > 1 else ""
    return f"{self.cases[0].name}{more}"


def plan(
  cases: Sequence[Case], *, workers: int = 1, program: str = "auto"
) -> list[Block]:
  """Returns the blocks in which cases are trained, in the order of the cases.

  Args:
    cases: with different names.
    workers: number of processes.
    program: a name in ``PROGRAMS``.
  """
  choices.check(program, PROGRAMS, key="program")
  groups: dict[str, list[int]] = {}
  for i, case in enumerate(cases):
    key = sharing.key_of(case.config) if program == "auto" else None
    groups.setdefault(f"alone {i}" if key is None else key, []).append(i)
  # With few groups, each is split, so that no process waits for another.
  parts_of = workers if len(groups) < _MANY * workers else 1
  blocks = []
  for key, indices in groups.items():
    if key.startswith("alone "):
      blocks.append(Block(cases=(cases[indices[0]],)))
      continue
    most = sharing.most_at_a_time(cases[indices[0]].config)
    if any(cases[i].folder is not None for i in indices):
      most = 1
    parts = sharing.split(indices, most, parts_of)
    size = len(parts[0])
    blocks += [
      Block(cases=tuple(cases[i] for i in part), key=key, size=size)
      for part in parts
    ]
  return blocks


class Trainer:
  """Trains blocks in this process; keeps the program for the next block.

  Attributes:
    sharing: the group of the last block.
  """

  def __init__(self):
    self.sharing = Sharing()

  def train(
    self,
    block: Block,
    on_step: OnStep = lambda name, step: None,
    origin: Origin | None = None,
  ) -> list[Outcome]:
    """Trains a block; a case that fails gives an outcome with its error."""
    origin = origin or Origin()
    first = block.cases[0]
    if block.key is None or first.folder is not None:
      make = None if block.key is None else self.sharing.make
      return [_train_alone(first, on_step, origin, make)]
    with Interrupt() as interrupt:
      interrupt.outcome = f"while {block.name} trained"
      try:
        return self._train(block, on_step, origin, interrupt)
      except Exception as error:
        text = members.describe_error(error)
        return [
          Outcome(name=case.name, config=case.config, run_id="", error=text)
          for case in block.cases
        ]

  def _train(self, block, on_step, origin, interrupt) -> list[Outcome]:
    group = self.sharing.group(block.cases[0].config)
    failed, started = [], []
    for case in block.cases:
      try:
        started.append(group.member(case.name, case.config, Lines()))
      except ValueError as error:
        failed.append(
          Outcome(
            name=case.name, config=case.config, run_id="", error=f"{error}"
          )
        )
    if not started:
      return failed
    return failed + group.train(
      started,
      size=block.size,
      interrupt=interrupt,
      on_step=on_step,
      origin=origin,
    )


def _train_alone(
  case: Case, on_step: OnStep, origin: Origin, make: members.Make | None
) -> Outcome:
  """Trains a case as a run of its own, in its folder or for a while."""
  with contextlib.ExitStack() as stack:
    folder = case.folder
    if folder is None:
      temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
      folder = stack.enter_context(temporary)
    outcome = Outcome(name=case.name, config=case.config, run_id="")
    with console.showing("quiet"):
      try:
        outcome.result = members.run(
          case.config,
          folder,
          origin,
          lambda step: on_step(case.name, step),
          make,
        )
      except Exception as error:
        outcome.error = members.describe_error(error)
        if isinstance(error, NonFiniteMetricError):
          outcome.diverged = error.step
      with contextlib.suppress(OSError, ValueError):
        outcome.curves = read_metrics(folder)
      if outcome.result is not None:
        outcome.config = outcome.result["config"]
        outcome.run_id = outcome.result["run_id"]
        _describe_last(outcome, folder)
  return outcome


def _describe_last(outcome: Outcome, folder: str) -> None:
  """Adds the variables of the last checkpoint and the codes of its layers."""
  assert outcome.result is not None
  model = runner.load_model(folder, checkpoint=f"{outcome.result['step']}")
  outcome.variables = jax.device_get(model.variables)
  params = model.variables["params"]
  outcome.layers = named_codes(
    {
      layer.path: statistics.describe_codes(layer.quantize_kernel(params))
      for layer in model.layers
      if layer.recipe.weights is not None
    }
  )
