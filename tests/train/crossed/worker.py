"""One of several processes that run some experiments, one after the other.

python -m tests.train.crossed.worker JOBS PORT COUNT PROCESS
"""

import pickle
import sys

from bitnet_jax.train import multihost, runner


def main(jobs, port, count, process):
  """Runs (config, folder) pairs from a pickled file."""
  multihost.initialize(
    coordinator=f"localhost:{port}",
    num_processes=int(count),
    process_id=int(process),
  )
  with open(jobs, "rb") as file:
    for config, folder in pickle.load(file):
      runner.run(config, folder)


if __name__ == "__main__":
  main(*sys.argv[1:])
