"""The only training loop there is, and what it is made of."""

from bitnet_jax import extras

extras.need("bitnet_jax.train", "tensorboardX", "tqdm", extra="train")
