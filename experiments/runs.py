"""Lists the runs below a folder: ``bitnet-jax runs``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import runs

if __name__ == "__main__":
  program.run(runs.main)
