"""Inputs of layers: from whatever a user passes to what a product takes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

from bitnet_jax.ops.norm import normalize
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
  pass straight through to ``x``.

  Args:
    x: input, any dtype of numbers.
    recipe: that of all the layers.
    axes: those of one token, that the layers contract; of convolutions, all but
      the batch.
    key: random key, for stochastic rounding.

  Returns:
    Codes, scale, and the normalized input as ``latent``.

  Raises:
    ValueError: if the recipe leaves activations in float.
  """
  recipe = get_recipe(recipe)
  if recipe.acts is None:
    raise ValueError(
      "quantize_input needs a recipe that quantizes activations; this one"
      " leaves them in float"
    )
  axes = tuple(axis % x.ndim for axis in axes)
  latent = _normalize(x, recipe, axes)
  q = recipe.acts.quantize(
    jax.lax.stop_gradient(latent),
    axes=tuple(range(x.ndim)) if recipe.acts.axis is None else axes,
    key=key,
  )
  return QTensor(q.qvalue, q.scale, latent)


def normalize_input(
  x: Num[Array, "*shape"] | QTensor,
  recipe: RecipeLike,
  *,
  axes: tuple[int, ...] = (-1,),
) -> Float[Array, "*shape"] | QTensor:
  """Applies the norm of a recipe; what is quantized has been through it.

  Integers become float32, as they would by promotion with a kernel.
  """
  return x if isinstance(x, QTensor) else _normalize(x, recipe, axes)


def _normalize(x, recipe, axes):
  if not jnp.issubdtype(x.dtype, jnp.inexact):
    x = x.astype(jnp.float32)
  return normalize(x, get_recipe(recipe).norm, axes=axes)
