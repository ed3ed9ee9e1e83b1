"""Inputs of layers: from whatever a user passes to what a product takes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, Key, Num

from bitnet_jax.ops.norm import normalize, quantize_rows, quantizes_rows
from bitnet_jax.quantizers.quantizer import check_real
from bitnet_jax.quantizers.recipe import RecipeLike, get_recipe
from bitnet_jax.types import QTensor


def quantize_input(
  x: Num[Array, "*shape"],
  recipe: RecipeLike,
  *,
  axes: tuple[int, ...] = (-1,),
  key: Key[Array, ""] | None = None,
) -> QTensor:
  """Normalizes and quantizes an input that several layers share, once.

  Query, key and value of an attention have one input, and so have gate and up
  of a gated feed-forward: each takes the result in place of ``x``. Gradients
  pass straight through to ``x``, in reverse mode only.

  Args:
    x: input, any dtype of real numbers.
    recipe: that of all the layers.
    axes: those of one token, that the layers contract; of convolutions, all but
      the batch.
    key: random key, for stochastic rounding.

  Returns:
    Codes, scale, and the normalized input as ``latent``.

  Raises:
    TypeError: for complex numbers.
    ValueError: if the recipe leaves activations in float.
  """
  recipe = get_recipe(recipe)
  if recipe.acts is None:
    raise ValueError(
      "quantize_input needs a recipe that quantizes activations; this one"
      " leaves them in float"
    )
  check_real(x=x)
  x, axes = as_floats(x), tuple(axis % x.ndim for axis in axes)
  if quantizes_rows(x, recipe.acts, axes=axes):
    return quantize_rows(x, recipe.norm, recipe.acts, axes=axes)
  latent = normalize(x, recipe.norm, axes=axes)
  q = recipe.acts.quantize(
    jax.lax.stop_gradient(latent),
    axes=tuple(range(x.ndim)) if recipe.acts.axis is None else axes,
    key=key,
  )
  return QTensor(q.qvalue, q.scale, latent)


def prepare_input(
  x: Num[Array, "*shape"] | QTensor,
  recipe: RecipeLike,
  *,
  axes: tuple[int, ...] = (-1,),
  strength: ArrayLike | None,
) -> Float[Array, "*shape"] | QTensor:
  """Applies the norm of a recipe; what is quantized has been through it.

  Integers become float32, as they would by promotion with a kernel.

  Args:
    x: input of a layer, or what ``quantize_input`` made of it.
    recipe: of the layer.
    axes: see ``quantize_input``.
    strength: share of quantization in force, see ``bit_dot``.

  Returns:
    What a product takes: it is quantized already where one kernel does both.

  Raises:
    TypeError: for complex numbers, unless the recipe is "float".
  """
  if isinstance(x, QTensor):
    return x
  x, recipe = as_floats(x), get_recipe(recipe)
  if not recipe.is_float:
    check_real(x=x)
  acts = recipe.acts if strength is None else None
  if acts is not None and quantizes_rows(x, acts, axes=axes):
    return quantize_rows(x, recipe.norm, acts, axes=axes)
  return normalize(x, recipe.norm, axes=axes)


def as_floats(x: Any) -> Inexact[Array, "*shape"]:
  """Returns numbers as a JAX array; integers and booleans become float32."""
  x = jnp.asarray(x)
  return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
