"""Exports a trained network to other formats: ``bitnet-jax export``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import export

if __name__ == "__main__":
  program.run(export.main)
