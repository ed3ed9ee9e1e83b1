"""Choosing a token from logits."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """How tokens are chosen.

  Attributes:
    temperature: divides the logits; 0 takes the likeliest token.
    top_k: only so many of the likeliest tokens; ``None`` for all.
    top_p: only the likeliest tokens that together have this probability, at
      least one (2019, 1904.09751); ``None`` for all. After ``top_k``.
  """

  temperature: float = 0.0
  top_k: int | None = None
  top_p: float | None = None

  def __post_init__(self):
    if not self.temperature >= 0:
      raise ValueError(
        f"temperature is {self.temperature}; it must not be negative"
      )
    if self.top_k is not None and self.top_k < 1:
      raise ValueError(f"top_k is {self.top_k}; it must be at least 1")
    if self.top_p is not None and not 0 < self.top_p <= 1:
      raise ValueError(f"top_p is {self.top_p}; it must lie in (0, 1]")

  def __call__(
    self, logits: Float[Array, "b v"], key: Key[Array, ""]
  ) -> Int[Array, " b"]:
    """Returns one token for each row of logits."""
    logits = logits.astype(jnp.float32)
    if self.temperature == 0:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = self.restrict(logits / self.temperature)
    return jax.random.categorical(key, logits).astype(jnp.int32)

  def restrict(self, logits: Float[Array, "b v"]) -> Float[Array, "b v"]:
    """Returns logits, minus infinity for the tokens that are left out."""
    if self.top_k is not None:
      k = min(self.top_k, logits.shape[-1])
      least = jax.lax.top_k(logits, k)[0][:, -1:]
      logits = jnp.where(logits < least, -jnp.inf, logits)
    if self.top_p is not None:
      ordered = jnp.sort(logits, axis=-1, descending=True)
      shares = jax.nn.softmax(ordered, axis=-1)
      before = jnp.cumsum(shares, axis=-1) - shares
      kept = jnp.where(before < self.top_p, ordered, jnp.inf)
      least = jnp.min(kept, axis=-1, keepdims=True)
      logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits
