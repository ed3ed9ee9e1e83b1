"""Imports a decoder from Hugging Face transformers: ``bitnet-jax import``."""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax.commands import import_hf

if __name__ == "__main__":
  program.run(import_hf.main)
