"""Chooses int8 or float for products of codes, by backend and shape.

Both give the same bits, so the choice only affects speed. It follows the
measurements in docs/performance.md.
"""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp

from bitnet_jax import backend
from bitnet_jax.quantizers.recipe import Recipe

# float32 holds every integer up to here, so sums below it are exact.
EXACT_FLOAT32 = 2**24

# Backends whose int8 products have been seen to compile.
_WITH_INT8 = ("cpu", "gpu", "tpu")


def largest_sum(recipe: Recipe, terms: int) -> int:
  """Returns the largest magnitude that a sum of ``terms`` products can have."""
  assert recipe.acts is not None
  assert recipe.weights is not None
  return terms * recipe.acts.largest_code * recipe.weights.largest_code


def choose_compute(recipe: Recipe, *, terms: int, slow_in_int8: bool) -> str:
  """Returns "int8" or "float" for a recipe whose operands are both codes.

  Args:
    recipe: recipe with compute "int8", "float" or "auto".
    terms: number of products that are summed in one output element.
    slow_in_int8: whether XLA's CPU backend has no fast int8 path for the shape.

  Raises:
    ValueError: if "float" is requested but not exact; gives the number of terms
      up to which it is exact.
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
  if not exact:
    return "int8"
  if on_cpu() and slow_in_int8:
    return "float"
  return "int8" if has_int8_products(backend.current()) else "float"


def on_cpu() -> bool:
  """Whether the program that is traced is for a CPU."""
  return backend.current() == "cpu"


@functools.cache
def has_int8_products(name: str) -> bool:
  """Whether a backend compiles int8 products; logs once if it does not."""
  if name in _WITH_INT8:
    return True
  codes = jax.ShapeDtypeStruct((8, 8), jnp.int8)
  product = functools.partial(jnp.matmul, preferred_element_type=jnp.int32)
  try:
    jax.jit(product).lower(codes, codes).compile()
  except Exception as error:  # Whatever a foreign backend raises.
    logging.getLogger(__name__).warning(
      "the backend %r has no int8 products (%s); products of codes run in float"
      " there, with the same results",
      name,
      error,
    )
    return False
  return True


def float_dtype_of_codes() -> Any:
  """Returns the dtype in which a product of codes is fast and exact.

  Codes fit bfloat16 exactly, which GPU and TPU multiply fast and sum in
  float32; CPUs want float32.
  """
  return jnp.float32 if on_cpu() else jnp.bfloat16


def gradient_dtype(recipe: Recipe, dtype: Any, precision: Any) -> Any:
  """Returns the dtype of the factors of products in the backward pass.

  float32, unless the recipe says bfloat16. On GPU also bfloat16, summed in
  float32, if the layer computes in bfloat16 and requests no higher precision,
  as ``nn.Dense`` does. TPUs multiply float32 factors like this by themselves.
  """
  if recipe.backward == "bfloat16":
    return jnp.bfloat16
  default = precision in (None, jax.lax.Precision.DEFAULT)
  if backend.current() == "gpu" and dtype == jnp.bfloat16 and default:
    return jnp.bfloat16
  return jnp.float32
