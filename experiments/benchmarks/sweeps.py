"""Training steps of several members of a sweep in one program."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks.timing import Case, Run
from benchmarks.torch_baseline import Torch
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.devices.mesh import place_batch, replicate
from bitnet_jax.train.model import INIT, TRAIN
from bitnet_jax.train.sweep.batches import Batches
from bitnet_jax.train.sweep.group import Group
from bitnet_jax.train.sweep.program import Program

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


def sweep(torch: Torch | None) -> Iterator[Case]:
  """Steps of members one at a time, and of several in one program.

  Times are those of one step of one member.
  """
  del torch
  for name, (path, sizes) in _CASES.items():
    for recipe in ("float", "b158"):
      overrides = {"quant.recipe": recipe, "mesh.data": 1}
      config = runner.load_config(path, overrides)
      config = {**config, "steps_per_dispatch": _STEPS}
      group = Group(build(config))
      runs = {f"{size}": _steps(group, config, size) for size in sizes}
      ratios = [(f"{size}", f"{sizes[0]}") for size in sizes[1:]]
      yield Case(f"{name}, {recipe}", runs, ratios)


def _steps(group: Group, config: Mapping[str, Any], size: int) -> Run:
  """Returns a timer of steps, whose seconds are those of one of one member."""
  first, program = group.experiment, Program(group.experiment, size)
  several = program.several
  members = [
    group.experiment_of({**config, "seed": seed}) for seed in range(size)
  ]
  with first.activate():
    keys = program.keys([member.settings.seed for member in members])
    numbers, stored = program.numbers(members), group.stored.arrays
    batches = Batches(program, group.stored, members)
    made = [batches(step) for step in range(_STEPS if several else 1)]
    stacked = {n: np.stack([batch[n] for batch in made]) for n in made[0]}
    placed = place_batch(stacked, first.mesh, stacked=True)
    count = replicate(np.int32(_STEPS), first.mesh)
    states = [program.init(keys[INIT])]
  if not several:
    placed = {name: array[0] for name, array in placed.items()}

  def take():
    state, key = states.pop(), keys[TRAIN]
    if several:
      return program.train_steps(
        numbers, stored, state, placed, key, count, None
      )
    return program.train_step(numbers, stored, state, placed, key, None)

  def run(calls: int) -> float:
    start = time.perf_counter()
    with first.activate():
      for _ in range(calls):
        state, metrics = take()
        jax.block_until_ready(metrics)
        states.append(state)
    seconds = time.perf_counter() - start
    return seconds / size / (_STEPS if several else 1)

  return run
