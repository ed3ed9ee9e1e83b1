"""Checks and dtypes that the size classes of all models share."""

from typing import Any

import jax.numpy as jnp

from bitnet_jax import choices

DTYPES = {
  "float32": jnp.float32,
  "bfloat16": jnp.bfloat16,
  "float16": jnp.float16,
}


def get_dtype(name: str, *, key: str) -> Any:
  """Returns the dtype of that name; a ValueError lists the names."""
  return choices.pick(DTYPES, name, key=key)


def check_positive(**sizes: int) -> None:
  """Raises a ValueError that names the first size below 1."""
  for name, size in sizes.items():
    if size < 1:
      raise ValueError(f"model.{name} is {size}; it must be at least 1")


def check_rate(**rates: float) -> None:
  """Raises a ValueError that names the first rate outside [0, 1)."""
  for name, rate in rates.items():
    if not 0 <= rate < 1:
      raise ValueError(f"model.{name} is {rate}; it must lie in [0, 1)")
