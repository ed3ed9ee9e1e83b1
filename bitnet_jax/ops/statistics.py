"""Statistics of weight codes: fractions of each value, and flip rate."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from bitnet_jax.types import QTensor


def code_fractions(codes: Int8[Array, "*shape"]) -> dict[str, Float[Array, ""]]:
  """Returns the fractions of negative, zero and positive codes."""
  return {
    "negative_fraction": jnp.mean(codes < 0, dtype=jnp.float32),
    "zero_fraction": jnp.mean(codes == 0, dtype=jnp.float32),
    "positive_fraction": jnp.mean(codes > 0, dtype=jnp.float32),
  }


def flip_rate(
  before: Int8[Array, "*shape"], after: Int8[Array, "*shape"]
) -> Float[Array, ""]:
  """Returns the fraction of codes that differ."""
  return jnp.mean(before != after, dtype=jnp.float32)


def describe_codes(
  q: QTensor, before: Int8[Array, "*shape"] | None = None
) -> dict[str, Float[Array, ""]]:
  """Returns the statistics of a kernel: mean scale, and fractions of codes.

  Args:
    q: codes, packed or not, and their scales.
    before: earlier codes of the kernel, for ``flip_rate``.
  """
  codes = q.codes
  described = {} if before is None else {"flip_rate": flip_rate(before, codes)}
  return {**described, "scale": q.scale.mean(), **code_fractions(codes)}
