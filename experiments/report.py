"""Writes the site of all studies: ``bitnet-jax report``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import report

if __name__ == "__main__":
  program.run(report.main)
