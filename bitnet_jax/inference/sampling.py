"""Samples tokens from logits."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

NO_TOKEN = -1  # Chosen where logits are no distribution.
# Below it a temperature is 0 in float32, and above its inverse one over it.
_COLDEST = float(jnp.finfo(jnp.float32).tiny)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """Options of sampling.

  Tokens have ranks: the likeliest comes first, and of equally likely ones the
  one of the lowest id.

  Attributes:
    temperature: divides the logits; 0 takes the first token.
    top_k: only so many of the first tokens; ``None`` for all.
    top_p: only the first tokens that together have this probability, at least
      one (2019, 1904.09751); ``None`` for all. After ``top_k``.

  Example:
    >>> import jax
    >>> from bitnet_jax.inference import Sampling
    >>> sample = Sampling(temperature=0.8, top_k=1)
    >>> logits = jax.numpy.array([[0.0, 2.0, 1.0]])
    >>> sample(logits, jax.random.key(0)).tolist()
    [1]
  """

  temperature: float = 0.0
  top_k: int | None = None
  top_p: float | None = None

  def __post_init__(self):
    if not 0 <= self.temperature < math.inf:
      raise ValueError(
        f"temperature is {self.temperature}; it must be finite and not negative"
      )
    if self.top_k is not None and not (
      isinstance(self.top_k, (int, np.integer)) and self.top_k >= 1
    ):
      raise ValueError(
        f"top_k is {self.top_k}; it must be a whole number of at least 1"
      )
    if self.top_p is not None and not 0 < self.top_p <= 1:
      raise ValueError(f"top_p is {self.top_p}; it must lie in (0, 1]")

  def __call__(
    self, logits: Float[Array, "b v"], key: Key[Array, ""]
  ) -> Int[Array, " b"]:
    """Returns one token for each row of logits.

    It is ``NO_TOKEN`` for a row that is no distribution: with NaN or infinity
    in it, or nothing but minus infinity, which stands for probability 0.
    """
    logits = logits.astype(jnp.float32)
    is_valid = is_distribution(logits)
    if self.temperature == 0:
      chosen = jnp.argmax(logits, axis=-1)
    else:
      chosen = jax.random.categorical(key, self.restrict(self._scaled(logits)))
    return jnp.where(is_valid, chosen.astype(jnp.int32), NO_TOKEN)

  def _scaled(self, logits):
    # The largest becomes 0, so that no temperature makes it infinite.
    top = jnp.max(logits, axis=-1, keepdims=True)
    temperature = np.clip(float(self.temperature), _COLDEST, 1 / _COLDEST)
    return (logits - top) / float(temperature)

  def restrict(self, logits: Float[Array, "b v"]) -> Float[Array, "b v"]:
    """Returns logits, minus infinity for the tokens that are left out."""
    size = logits.shape[-1]
    count = size if self.top_k is None else min(int(self.top_k), size)
    # In float32 the sum of all probabilities may reach 1 before the last.
    top_p = None if self.top_p == 1 else self.top_p
    if count == size and top_p is None:
      return logits
    ordered, tokens = jax.lax.top_k(logits, count)  # Of equals, the first.
    if top_p is not None:
      probabilities = jax.nn.softmax(ordered.astype(jnp.float32), axis=-1)
      before = jnp.cumsum(probabilities, axis=-1) - probabilities
      is_in = (before < top_p) | (jnp.arange(count) == 0)[None]
      ordered = jnp.where(is_in, ordered, -jnp.inf)
    rows = jnp.arange(len(logits))[:, None]
    return jnp.full_like(logits, -jnp.inf).at[rows, tokens].set(ordered)


def is_distribution(logits: Float[Array, "*b v"]) -> Bool[Array, "*b"]:
  """Returns which rows of logits give every token a probability."""
  # Not by a maximum, which may lose NaN.
  is_bad = jnp.isnan(logits) | (logits == jnp.inf)
  return ~jnp.any(is_bad, axis=-1) & jnp.any(logits > -jnp.inf, axis=-1)
