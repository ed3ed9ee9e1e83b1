"""Training: the loop, its state and step, tasks, optimizers, run folders."""

from bitnet_jax import extras

extras.need("bitnet_jax.train", "tensorboardX", "tqdm", extra="train")
