"""Training steps of several members of a sweep in one program."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from benchmarks.timing import Case, Run
from benchmarks.workers import Worker
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.devices.mesh import place_batch, replicate
from bitnet_jax.train.model import INIT, TRAIN
from bitnet_jax.train.sweep.batches import Batches
from bitnet_jax.train.sweep.group import Group

_STEPS = 10  # of a dispatch
# Config files, and numbers of members at a time.
_CASES: Mapping[str, tuple[str, tuple[int, ...]]] = {
  "xor": ("configs/xor_mlp.py", (1, 4, 8, 16, 32, 64)),
  "digits, width 128": ("configs/digits_mlp.py", (1, 2, 4, 8, 32)),
  "digits, width 512": ("configs/digits_mlp.py:B", (1, 2, 4)),
  "digits, cnn": ("configs/digits_cnn.py", (1, 4)),
  "graph of karate": ("configs/karate_gnn.py", (1, 4, 16)),
  "small graphs": ("configs/graphs_gnn.py", (1, 4)),
  "decoder": ("configs/pydoc_decoder.py", (1, 2, 4)),
}


def sweep(torch: Worker | None) -> Iterator[Case]:
  """Steps of members one at a time, and of several in one program.

  Times are those of one step of one member.
  """
  del torch
  for name, (path, sizes) in _CASES.items():
    for recipe in ("float", "b158"):
      group = functools.cache(functools.partial(_group, path, recipe))
      runs = {f"{size}": _timer(group, size) for size in sizes}
      ratios = [(f"{size}", f"{sizes[0]}") for size in sizes[1:]]
      yield Case(f"{name}, {recipe}", runs, ratios)


def _group(path: str, recipe: str) -> Group:
  """Returns the group of a config file, with several steps in a dispatch."""
  overrides = {"quant.recipe": recipe, "mesh.data": 1}
  config = runner.load_config(path, overrides)
  return Group(build({**config, "steps_per_dispatch": _STEPS}))


def _timer(group: Callable[[], Group], size: int) -> Run:
  """Returns a timer of steps, whose seconds are those of one of one member."""
  take = functools.cache(lambda: _Steps(group(), size))
  return lambda calls: take().seconds(calls)


class _Steps:
  """Steps of members that differ in their seeds."""

  def __init__(self, group: Group, size: int):
    self._first, self._program = group.experiment, group.program(size)
    self._stored = group.stored.arrays
    first, program = self._first, self._program
    self._steps = _STEPS if program.several else 1
    members = [
      group.experiment_of({**first.config, "seed": seed})
      for seed in range(size)
    ]
    with first.activate():
      keys = program.keys([member.settings.seed for member in members])
      self._key, self._numbers = keys[TRAIN], program.numbers(members)
      batches = Batches(program, group.stored, members)
      made = [batches(step) for step in range(self._steps)]
      stacked = {n: np.stack([batch[n] for batch in made]) for n in made[0]}
      self._batches = place_batch(stacked, first.mesh, stacked=True)
      self._count = replicate(np.int32(_STEPS), first.mesh)
      self._state = program.init(keys[INIT])

  def _take(self):
    arguments = (self._numbers, self._stored, self._state)
    if self._program.several:
      return self._program.train_steps(
        *arguments, self._batches, self._key, self._count, None
      )
    batch = {name: array[0] for name, array in self._batches.items()}
    return self._program.train_step(*arguments, batch, self._key, None)

  def seconds(self, calls: int) -> float:
    """Returns the seconds of a step of a member, times ``calls``."""
    start = time.perf_counter()
    with self._first.activate():
      for _ in range(calls):
        self._state, metrics = self._take()
        jax.block_until_ready(metrics)
    seconds = time.perf_counter() - start
    return seconds / self._program.size / self._steps
