"""Predicts with a trained model: ``bitnet-jax predict``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import predict

if __name__ == "__main__":
  program.run(predict.main)
