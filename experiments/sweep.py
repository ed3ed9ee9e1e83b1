"""Trains a run for each combination of values: ``bitnet-jax sweep``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import sweep

if __name__ == "__main__":
  program.run(sweep.main)
