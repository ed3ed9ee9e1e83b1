"""Training batches of several members: the data once, the order of each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitnet_jax.data.batches.order import TrainBatches, fixed_examples
from bitnet_jax.train.devices.mesh import replicate
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.sweep.program import INDICES, Program

_MOST_STORED = 2**28  # bytes of examples on the device


class Stored:
  """The examples on the device, if batches are rows of them.

  Attributes:
    arrays: all examples by name, or one batch that is the same at each step;
      nothing if batches are made on the host.
    is_constant: whether it is such a batch.
  """

  def __init__(self, experiment: Experiment):
    self.arrays: dict[str, Any] = {}
    self.is_constant = experiment.full_graph
    batches = experiment.data.train_batch
    found = None
    if self.is_constant:
      found = batches(0)
    elif isinstance(batches, TrainBatches):
      found = fixed_examples(batches.examples)
    if found and sum(a.nbytes for a in found.values()) <= _MOST_STORED:
      mesh = experiment.mesh
      self.arrays = {name: replicate(a, mesh) for name, a in found.items()}


class Batches:
  """A function from a step to the batches of all members, stacked."""

  def __init__(
    self, program: Program, stored: Stored, members: Sequence[Experiment]
  ):
    """Members with equal seeds share batches that are made on the host."""
    self._stack, self._stored = program.stack, stored
    seeds = [member.settings.seed for member in members]
    reseed = program.experiment.data.reseed
    assert reseed is not None
    self._seeds = seeds
    self._by_seed: dict[int, Any] = {
      seed: reseed(seed) for seed in dict.fromkeys(seeds)
    }

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    """Returns indices into the stored examples, or arrays by name."""
    if self._stored.arrays:
      if self._stored.is_constant:
        # Not used; an axis is left to shard.
        rows = dict.fromkeys(self._by_seed, np.zeros(1, np.int32))
      else:
        rows = {
          seed: batches.indices(step).astype(np.int32)
          for seed, batches in self._by_seed.items()
        }
      return {INDICES: self._stack([rows[seed] for seed in self._seeds])}
    made = {seed: batches(step) for seed, batches in self._by_seed.items()}
    return {
      name: self._stack([made[seed][name] for seed in self._seeds])
      for name in made[self._seeds[0]]
    }

  def close(self) -> None:
    """Ends threads that make batches in advance."""
    for batches in self._by_seed.values():
      if hasattr(batches, "close"):
        batches.close()
