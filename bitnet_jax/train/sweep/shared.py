"""Runs in folders of their own that share data and programs, one after another.

They are runs as any other: a run resumes, stops and records by itself. Only its
experiment takes data and compiled programs from those before it.
"""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax

from bitnet_jax.train.build import build
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder import workdir
from bitnet_jax.train.folder.lock import VOCABULARY_FILES
from bitnet_jax.train.hooks import CodePrograms
from bitnet_jax.train.model import INIT
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.step import TrainStep
from bitnet_jax.train.sweep import sharing
from bitnet_jax.train.sweep.batches import Batches
from bitnet_jax.train.sweep.group import Group


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedExperiment(Experiment):
  """An experiment with the programs of a group.

  Attributes:
    group: the group.
  """

  group: Group

  @property
  def _program(self):
    return self.group.program(1)

  @classmethod
  def of(cls, group: Group, config: Mapping[str, Any]) -> "SharedExperiment":
    """Returns the experiment of a config of the group.

    Raises:
      ValueError: for a number that is out of its range.
    """
    own = group.experiment_of(config)
    with own.activate():
      batches = Batches(group.program(1), group.stored, [own])
    data = dataclasses.replace(own.data, train_batch=batches)
    fields = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
    return cls(**fields | {"data": data, "group": group})

  def _arguments(self) -> tuple[Any, Any]:
    return self._program.numbers([self]), self.group.stored.arrays

  def init(self, key: jax.Array | None = None) -> TrainState:
    """See ``Experiment``."""
    assert key is None
    return self._program.init(self._program.keys([self.settings.seed])[INIT])

  def abstract_state(self) -> TrainState:
    """See ``Experiment``."""
    return self.group.abstract_state

  def train_step(self) -> TrainStep:
    """See ``Experiment``."""
    return functools.partial(self._program.train_step, *self._arguments())

  def train_steps(self) -> TrainStep | None:
    """See ``Experiment``."""
    if not self._program.several:
      return None
    return functools.partial(self._program.train_steps, *self._arguments())

  def code_programs(self) -> CodePrograms:
    """See ``Experiment``."""
    return self._program.statistics

  def evaluator(
    self,
    between: Callable[[], None] | None = None,
    keep: Callable[[str, dict[str, Any]], None] | None = None,
  ) -> Callable[[str, TrainState], dict[str, float]]:
    """See ``Experiment``."""
    if keep is not None or self.task.detailed:
      return super().evaluator(between, keep)
    key = self.evaluation_key()

    def run(split: str, state: TrainState) -> dict[str, float]:
      sums = self.group.evaluate(
        self._program, split, state, key=key, between=between
      )
      return self.task.finish(split, sums)

    return run


class Sharing:
  """Makes experiments for ``runner.run``, which share what they can."""

  def __init__(self):
    self._key: str | None = None
    self._group: Group | None = None
    self._folder: pathlib.Path | None = None

  def group(
    self, config: Mapping[str, Any], folder: pathlib.Path | None = None
  ) -> Group:
    """Returns the group of a config; only the last one is kept.

    Args:
      config: nested dict, with a key of ``sharing.key_of``.
      folder: the workdir, where a vocabulary is saved; ``None`` saves none.
    """
    key = sharing.key_of(config)
    if self._group is None or self._key != key:
      self._group = None  # Frees its memory before more is read.
      self._group, self._key = Group(build(config, folder)), key
      self._folder = folder
    return self._group

  def make(self, config: Mapping[str, Any], folder: pathlib.Path) -> Experiment:
    """Returns the experiment of a run in a folder.

    It has data and programs of its own if nothing can be shared, or if it
    resumes a run of other data, such as an older version read.
    """
    if sharing.key_of(config) is None:
      return build(config, folder)
    group = self.group(config, folder)
    if workdir.recorded_data(folder) not in ("", group.experiment.fingerprint):
      return build(config, folder)
    if self._folder is not None and self._folder != folder:
      for name in VOCABULARY_FILES:
        if (self._folder / name).exists():
          shutil.copyfile(self._folder / name, folder / name)
    return SharedExperiment.of(group, config)
