"""Compares finished runs by their folders: ``bitnet-jax compare``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import compare

if __name__ == "__main__":
  program.run(compare.main)
