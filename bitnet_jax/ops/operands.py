"""Operands of products: an array, codes with a scale, or a blend of both."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Key, Num

from bitnet_jax.ops.norm import (
  normalize,
  quantize_rows,
  quantizes_rows,
  resolve_norm,
)
from bitnet_jax.quantizers.quantizer import Quantizer, check_real
from bitnet_jax.quantizers.recipe import Recipe, RecipeLike, get_recipe
from bitnet_jax.types import QTensor


@dataclasses.dataclass(frozen=True)
class Blend:
  """An operand that is partly quantized, while quantization is phased in.

  Attributes:
    values: ``x + strength * (dequantize(quantize(x)) - x)``, in float32.
    scale: scale of the codes; 1 for an operand that stays in float.
    strength: fraction of quantization.
    dtype: dtype of ``x``.
  """

  values: Array
  scale: Array
  strength: ArrayLike
  dtype: Any
  shape = property(lambda self: self.values.shape)


Operand: TypeAlias = Array | QTensor | Blend


def scale_axes(
  quantizer: Quantizer, ndim: int, axes: Sequence[int]
) -> tuple[int, ...]:
  """Returns the axes of an operand that share a scale.

  All of them, or ``axes``: those of one token, or of the weights of one output.
  """
  return tuple(range(ndim)) if quantizer.axis is None else tuple(axes)


def input_operand(
  x: Any,
  recipe: Recipe,
  *,
  axes: Sequence[int],
  strength: ArrayLike | None = None,
  key: Key[Array, ""] | None = None,
) -> Operand:
  """Quantizes an input, without the norm of the recipe; see ``bit_dot``.

  Args:
    x: values; or codes, which are used unchanged.
    recipe: recipe of the layer.
    axes: the axes of one token; in convolutions all but the batch.
    strength: fraction of quantization; ``None`` quantizes fully.
    key: random key, for stochastic rounding.

  Raises:
    TypeError: for complex numbers, unless the recipe is "float".
    ValueError: for codes where the product needs values, or a strength that the
      recipe's ``compute`` rules out.
  """
  return _operand("x", x, recipe, recipe.acts, axes, strength, key)


def weight_operand(
  w: Any,
  recipe: Recipe,
  *,
  strength: ArrayLike | None = None,
  key: Key[Array, ""] | None = None,
) -> Operand:
  """Quantizes weights [..., d_out]; see ``input_operand``."""
  axes = range(w.ndim - 1)
  return _operand("w", w, recipe, recipe.weights, axes, strength, key)


def _operand(name, array, recipe, quantizer, axes, strength, key):
  array = jax.tree.map(jnp.asarray, array)
  if isinstance(array, QTensor):
    if quantizer is None or strength is not None:
      raise ValueError(
        f"{name} is a QTensor, which needs a recipe that quantizes it, and no"
        " strength"
      )
    return array
  if recipe.is_float:
    return array
  check_real(**{name: array})
  if strength is not None:
    return _blend(array, recipe, quantizer, axes, strength, key)
  if quantizer is None:
    return array
  axes = scale_axes(quantizer, array.ndim, axes)
  q = quantizer.quantize(jax.lax.stop_gradient(array), axes=axes, key=key)
  return QTensor(q.qvalue, q.scale, array)


def _blend(array, recipe, quantizer, axes, strength, key):
  if recipe.compute == "int8":
    raise ValueError(
      "compute is 'int8', but a strength was given, which blends operands in"
      " float; use compute='auto' while quantization is phased in"
    )
  values = array.astype(jnp.float32)
  if quantizer is None:
    ones = jnp.ones((1,) * array.ndim, jnp.float32)
    return Blend(values, ones, strength, array.dtype)
  axes = scale_axes(quantizer, array.ndim, axes)
  q = quantizer.quantize(jax.lax.stop_gradient(array), axes=axes, key=key)
  phased = values + strength * (q.dequantize() - values)
  slope = 1.0
  if recipe.ste == "clipped":
    inside = quantizer.in_range(array, axes=axes)
    slope = jnp.where(inside, 1.0, 1.0 - strength)
  values = _with_slope(values, jax.lax.stop_gradient((phased, slope)))
  return Blend(values, q.scale, strength, array.dtype)


@jax.custom_jvp
def _with_slope(values, phased_and_slope):
  """Returns ``phased``, whose derivative by ``values`` is ``slope``."""
  del values
  return phased_and_slope[0]


@_with_slope.defjvp
def _with_slope_jvp(primals, tangents):
  _, slope = primals[1]
  return _with_slope(*primals), tangents[0] * slope


def split_key(key: Key[Array, ""] | None) -> tuple[Any, Any]:
  """Returns the keys of input and weights; none without a key."""
  if key is None:
    return None, None
  x_key, w_key = jax.random.split(key)
  return x_key, w_key


def draws(recipe: Recipe, x: Any, w: Any) -> bool:
  """Whether an operand is rounded stochastically; codes already are rounded."""
  return any(
    quantizer is not None and quantizer.needs_key
    for quantizer, operand in ((recipe.acts, x), (recipe.weights, w))
    if not isinstance(operand, QTensor)
  )


def quantize_operands(
  x: Any,
  w: Any,
  recipe: Recipe,
  *,
  axes: tuple[int, ...] = (-1,),
  pad: Callable[[Array], Array] | None = None,
  strength: ArrayLike | None,
  key: Key[Array, ""] | None,
) -> tuple[Operand, Operand]:
  """Normalizes the input of a layer, and quantizes it and the kernel.

  Args:
    x: input, or its codes from ``quantize_input``.
    w: kernel, or its codes.
    recipe: recipe of the layer.
    axes: see ``quantize_input``.
    pad: pads the normalized input; ``None`` for layers without padding.
    strength: see ``input_operand``.
    key: random key, for stochastic rounding.

  Returns:
    The two operands for ``multiply``.

  Raises:
    TypeError: for complex numbers, unless the recipe is "float".
    ValueError: see ``input_operand``.
  """
  x = prepare_input(x, recipe, axes=axes, strength=strength)
  if pad is not None:
    scale = x.scale if isinstance(x, QTensor) else None
    x = jax.tree.map(lambda a: a if a is scale else pad(a), x)
  x_key, w_key = split_key(key)
  axes = tuple(axis % x.ndim for axis in axes)
  return (
    input_operand(x, recipe, axes=axes, strength=strength, key=x_key),
    weight_operand(w, recipe, strength=strength, key=w_key),
  )


def quantize_input(
  x: Num[Array, "*shape"],
  recipe: RecipeLike,
  *,
  axes: tuple[int, ...] = (-1,),
  key: Key[Array, ""] | None = None,
) -> QTensor:
  """Normalizes and quantizes, once, an input that several layers share.

  Examples are the input of query, key and value in attention, and of gate and
  up in a gated feed-forward layer. Each layer takes the result in place of
  ``x``. Gradients pass straight through to ``x``, in reverse mode only.

  Args:
    x: input, any dtype of real numbers.
    recipe: recipe of all the layers.
    axes: the axes of one token, which the layers contract; in convolutions all
      but the batch.
    key: random key, for stochastic rounding.

  Returns:
    Codes, scale, and the normalized input as ``latent``.

  Raises:
    TypeError: for complex numbers.
    ValueError: if the recipe leaves activations in float.

  Example:
    >>> import jax
    >>> from bitnet_jax.ops import bit_dot, quantize_input
    >>> x = jax.random.normal(jax.random.key(0), (2, 8))
    >>> shared = quantize_input(x, "b158")
    >>> w = jax.numpy.eye(8)
    >>> queries, keys = bit_dot(shared, w, "b158"), bit_dot(shared, -w, "b158")
    >>> queries.shape, keys.shape
    ((2, 8), (2, 8))
  """
  recipe = get_recipe(recipe)
  if recipe.acts is None:
    raise ValueError(
      "quantize_input needs a recipe that quantizes activations; this one"
      " leaves them in float"
    )
  prepared = prepare_input(x, recipe, axes=axes, strength=None)
  q = input_operand(prepared, recipe, axes=[a % x.ndim for a in axes], key=key)
  assert isinstance(q, QTensor)
  return q


def prepare_input(
  x: Num[Array, "*shape"] | QTensor,
  recipe: Recipe,
  *,
  axes: tuple[int, ...] = (-1,),
  strength: ArrayLike | None,
) -> Inexact[Array, "*shape"] | QTensor:
  """Applies the norm of a recipe to the input of a layer.

  Codes are returned unchanged. If one native kernel normalizes and rounds,
  codes are returned. Integers become float32. For arguments and errors see
  ``quantize_operands``.
  """
  if isinstance(x, QTensor):
    return x
  x = as_floats(x)
  if not recipe.is_float:
    check_real(x=x)
  acts = recipe.acts if strength is None else None
  norm, over = resolve_norm(recipe.norm, axes, x.ndim)
  together = {a % x.ndim for a in over} == {a % x.ndim for a in axes}
  if acts is not None and together:
    if quantizes_rows(x, norm, acts, axes=axes):
      return quantize_rows(x, norm, acts, axes=axes)
  return normalize(x, norm, axes=over)


def as_floats(x: Any) -> Inexact[Array, "*shape"]:
  """Returns numbers as a JAX array; integers and booleans become float32."""
  x = jnp.asarray(x)
  return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
