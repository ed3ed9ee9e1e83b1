"""Compiles the train step of a config for TPUs: ``bitnet-jax compile``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import compile_tpu

if __name__ == "__main__":
  program.run(compile_tpu.main)
