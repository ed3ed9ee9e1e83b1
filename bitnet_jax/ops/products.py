"""Quantized products of arrays: quantize both, and multiply."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, ArrayLike, Float, Key

from bitnet_jax.ops.multiply import multiply
from bitnet_jax.ops.operands import input_operand, split_key, weight_operand
from bitnet_jax.ops.xla_conv import Window
from bitnet_jax.quantizers.recipe import RecipeLike, get_recipe
from bitnet_jax.types import QTensor


def bit_dot(
  x: Float[Array, "*batch d_in"] | QTensor,
  w: Float[Array, "d_in d_out"] | QTensor,
  recipe: RecipeLike,
  *,
  bias: Float[Array, " d_out"] | None = None,
  strength: ArrayLike | None = None,
  key: Key[Array, ""] | None = None,
  precision: Any = None,
  dtype: Any = None,
) -> Float[Array, "*batch d_out"]:
  """Multiplies activations and weights as integers.

  ``y = (codes_x . codes_w) * scale_x * scale_w + bias``, the codes multiplied
  as int8 into int32, the scales applied one after the other in float32. The
  gradient is straight-through: ``dx = (g * scale_w) . codes_w^T`` and
  ``dw = (codes_x * scale_x)^T . g``, in float32 unless the recipe's
  ``backward`` says otherwise (on CPUs a kernel may sum integers of 24 bits,
  see ``ops.cpu.kernels.transposed_dot``). What is kept for it are the int8
  codes and the scales, besides an operand that the recipe leaves in float and,
  for ``ste="clipped"``, one boolean mask an operand. Reverse mode only:
  ``jax.jvp`` raises a TypeError. So does a second derivative that would need
  one of codes, such as a gradient penalty; with ``strength=1.0`` the same
  product has straight-through derivatives of any order.

  The norm of the recipe is not applied here but by ``normalize``, before.

  Args:
    x: activations, with any number of leading axes.
    w: latent weights. Each operand may be a ``QTensor`` instead, to quantize
      it once for several products; it is taken as it is, with codes in the
      recipe's range, and the gradient goes to its ``latent``.
    recipe: a ``Recipe`` or the name of one.
    bias: added after scaling, or before it under ``bias_in_product``.
    strength: ``None`` quantizes fully. A scalar in [0, 1] blends instead, in
      float: ``x + strength * (dequantize(quantize(x)) - x)`` for each operand.
    key: random key, for stochastic rounding; that of ``backward="int8"`` needs
      it for gradients alone.
    precision: of products with an operand in float, forward and backward.
    dtype: of the result; by default what the inputs promote to. The scales
      come from the inputs as given, before any cast.

  Returns:
    The product, in ``dtype``.

  Raises:
    ValueError: for shapes that do not match, an unknown recipe, a missing key,
      or a recipe that cannot run as asked (see ``choose_compute``).
    TypeError: see above; and for complex numbers, unless the recipe is
      "float".
  """
  if x.ndim < 1 or w.ndim != 2 or x.shape[-1] != w.shape[0]:
    raise ValueError(
      f"bit_dot takes x [*batch, K] and w [K, N], not {x.shape} and {w.shape}"
    )
  recipe = get_recipe(recipe)
  x_key, w_key = split_key(key)
  return multiply(
    input_operand(x, recipe, axes=(x.ndim - 1,), strength=strength, key=x_key),
    weight_operand(w, recipe, strength=strength, key=w_key),
    recipe,
    bias=bias,
    key=key,
    precision=precision,
    dtype=dtype,
  )


def bit_conv(
  x: Float[Array, "batch *spatial c_in"] | QTensor,
  w: Float[Array, "*window c_in_per_group c_out"] | QTensor,
  recipe: RecipeLike,
  *,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  feature_group_count: int = 1,
  bias: Float[Array, " c_out"] | None = None,
  strength: ArrayLike | None = None,
  key: Key[Array, ""] | None = None,
  precision: Any = None,
  dtype: Any = None,
) -> Float[Array, "batch *spatial_out c_out"]:
  """Convolves activations and weights as integers, channels last.

  Formulas, gradients and what is kept for them are those of ``bit_dot``; one
  activation scale is shared by a whole example, over space and channels.

  Args:
    x: activations with one batch axis and one or more spatial axes.
    w: latent weights. Each operand may be a ``QTensor``, see ``bit_dot``.
    recipe: a ``Recipe`` or the name of one.
    window_strides: as in ``jax.lax.conv_general_dilated``, like the next four.
    padding: "SAME", "VALID", or a (low, high) pair for each spatial axis.
    lhs_dilation: dilation of the input.
    rhs_dilation: dilation of the window.
    feature_group_count: number of groups of channels.
    bias: see ``bit_dot``, like the rest.
    strength: see ``bit_dot``.
    key: see ``bit_dot``.
    precision: see ``bit_dot``.
    dtype: see ``bit_dot``.

  Returns:
    The convolution, in ``dtype``.

  Raises:
    TypeError: as ``bit_dot``.
    ValueError: likewise.
  """
  if x.ndim != w.ndim or x.ndim < 3:
    raise ValueError(
      "bit_conv takes x [batch, *spatial, c_in] and w [*window, c_in / groups,"
      f" c_out], not {x.shape} and {w.shape}"
    )
  recipe = get_recipe(recipe)
  x_key, w_key = split_key(key)
  axes = range(1, x.ndim)
  return multiply(
    input_operand(x, recipe, axes=axes, strength=strength, key=x_key),
    weight_operand(w, recipe, strength=strength, key=w_key),
    recipe,
    window=Window.of(
      window_strides, padding, lhs_dilation, rhs_dilation, feature_group_count
    ),
    bias=bias,
    key=key,
    precision=precision,
    dtype=dtype,
  )
