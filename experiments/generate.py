"""Generates text with a trained model: ``bitnet-jax generate``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import generate

if __name__ == "__main__":
  program.run(generate.main)
