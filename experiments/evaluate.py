"""Evaluates a trained network: ``bitnet-jax evaluate``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import evaluate

if __name__ == "__main__":
  program.run(evaluate.main)
