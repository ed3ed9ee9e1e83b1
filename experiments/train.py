"""Trains the network of a config: ``bitnet-jax train``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import train

if __name__ == "__main__":
  program.run(train.main)
