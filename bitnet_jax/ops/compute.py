"""Whether a product of codes runs in integers or in floats.

Both give the same bits, so this is a choice of speed alone.
"""

import jax

from bitnet_jax.quantizers.recipe import Recipe

# float32 holds every integer up to here, so sums below it are exact.
EXACT_FLOAT32 = 2**24

# XLA's CPU int8 convolution has a slow path for few channels, and its int8
# product one for a single row: see docs/performance.md for the measurements.
CPU_MIN_ROWS = 2
CPU_MIN_CHANNELS = 4


def largest_sum(recipe: Recipe, terms: int) -> int:
  """Returns the largest magnitude that a sum of ``terms`` products can have."""
  assert recipe.acts is not None
  assert recipe.weights is not None
  return terms * recipe.acts.largest_code * recipe.weights.largest_code


def choose_compute(recipe: Recipe, *, terms: int, slow_in_int8: bool) -> str:
  """Returns "int8" or "float" for a recipe whose operands are both codes.

  Args:
    recipe: says "int8", "float", or "auto".
    terms: how many products are added up in one output element.
    slow_in_int8: whether XLA's CPU backend has no fast int8 path for the shape.

  Raises:
    ValueError: if "float" is asked for where it would not be exact, with the
      number of terms up to which it is.
  """
  exact = largest_sum(recipe, terms) <= EXACT_FLOAT32
  if recipe.compute == "float" and not exact:
    raise ValueError(
      f"compute='float' is not exact for {terms} terms of this recipe; it is"
      f" up to {EXACT_FLOAT32 // largest_sum(recipe, 1)} terms. Use"
      " compute='int8' or 'auto'"
    )
  if recipe.compute != "auto":
    return recipe.compute
  on_cpu = jax.default_backend() == "cpu"
  return "float" if on_cpu and slow_in_int8 and exact else "int8"
