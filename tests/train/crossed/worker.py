"""One of several processes that run some experiments, one after the other.

python -m tests.train.crossed.worker JOBS PORT COUNT PROCESS
"""

import pickle
import sys

import jax
import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.devices import multihost
from bitnet_jax.train.tasks import translation
from tests.train import tiny


def run(jobs):
  """Runs experiments.

  Args:
    jobs: configs, folders, and whether stubs take the place of models.
  """
  for config, folder, stubs in jobs:
    with pytest.MonkeyPatch.context() as patch:
      if stubs:
        tiny.use_stubs(patch)
        patch.setattr(translation, "beam_search", _copy)
      runner.run(config, folder)


def _copy(model, variables, inputs, input_mask, *, max_length, **options):
  """Writes what it reads."""
  del model, variables, input_mask, options
  return jax.jit(lambda ids: ids[:, :max_length])(inputs)


def main(jobs, port, count, process):
  """Joins the other processes, and runs the jobs of a pickled file."""
  multihost.initialize(
    coordinator=f"localhost:{port}",
    num_processes=int(count),
    process_id=int(process),
  )
  with open(jobs, "rb") as file:
    run(pickle.load(file))


if __name__ == "__main__":
  main(*sys.argv[1:])
