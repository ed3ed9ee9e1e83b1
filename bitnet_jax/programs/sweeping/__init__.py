"""Sweeps: a run for each combination of values of config keys."""

from bitnet_jax import extras

extras.need("bitnet_jax.programs.sweeping", "tqdm", extra="train")
