"""Quantized matrix products and convolutions: ``bit_dot``, ``bit_conv``."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, ArrayLike, Float, Key

from bitnet_jax.ops.operands import (
  Blend,
  Operand,
  input_operand,
  split_key,
  weight_operand,
)
from bitnet_jax.ops.placement import varying_alike
from bitnet_jax.ops.straight_through import (
  Spec,
  along_last,
  straight_through_product,
)
from bitnet_jax.ops.xla_conv import Window
from bitnet_jax.quantizers.quantizer import check_real
from bitnet_jax.quantizers.recipe import Recipe, RecipeLike, get_recipe
from bitnet_jax.types import QTensor

# The name of results for ``jax.checkpoint_policies.save_only_these_names``.
PRODUCT = "bit_product"


def multiply(
  x: Operand,
  w: Operand,
  recipe: Recipe,
  *,
  window: Window | None = None,
  bias: Float[Array, " d_out"] | None = None,
  key: Key[Array, ""] | None = None,
  precision: Any = None,
  dtype: Any = None,
) -> Float[Array, "..."]:
  """Multiplies operands: a matrix product, or with a window a convolution.

  Two float arrays give the full-precision product of Flax, bit for bit. If an
  operand is codes, the gradient is straight-through. ``bit_dot`` documents the
  formulas and errors.

  Args:
    x: result of ``input_operand``.
    w: result of ``weight_operand``.
    recipe: recipe of both; how the product and its gradients are computed.
    window: window of a convolution.
    bias: [d_out].
    key: random key, for ``backward="int8"``.
    precision: precision of products with an operand in float.
    dtype: dtype of the result.
  """
  if bias is not None and bias.shape != w.shape[-1:]:
    raise ValueError(
      f"bias has the shape {bias.shape}; for weights {w.shape} it must have"
      f" the shape {w.shape[-1:]}"
    )
  bias = None if bias is None else jnp.asarray(bias)
  if dtype is None:
    dtype = jnp.result_type(*(a.dtype for a in (x, w, bias) if a is not None))
  spec = Spec(recipe, window, precision, dtype)
  if recipe.is_float:
    y = _float_product(spec, x, w, bias)
    return checkpoint_name(y, PRODUCT)
  check_real(bias=bias)
  if isinstance(x, Blend) and isinstance(w, Blend):
    return checkpoint_name(_blended_product(spec, x, w, bias), PRODUCT)
  g_key = None
  if key is not None and recipe.backward == "int8":
    g_key = jax.random.fold_in(key, 2)
  x_latent, qx = _latent_and_codes(x)
  w_latent, qw = _latent_and_codes(w)
  operands = varying_alike(x_latent, w_latent, bias, qx, qw)
  y = straight_through_product(spec, *operands, g_key)
  return checkpoint_name(y.astype(dtype), PRODUCT)


def _latent_and_codes(operand):
  """Returns the array that gradients go to, and the codes and scale."""
  if isinstance(operand, QTensor):
    return operand.latent, QTensor(operand.qvalue, operand.scale)
  return operand, None


def _float_product(spec, x, w, bias):
  """Casts, multiplies and adds, as ``nn.Dense`` does."""
  x, w = x.astype(spec.dtype), w.astype(spec.dtype)
  y = spec.product.forward(
    x, w, **spec.options(precision=spec.precision, dtype=None)
  )
  return y if bias is None else y + along_last(bias.astype(spec.dtype), y)


def _blended_product(spec, x, w, bias):
  """Multiplies in float32."""
  y = spec.product.forward(
    x.values, w.values, **spec.options(precision=spec.precision, dtype=None)
  )
  if bias is not None:
    bias = along_last(bias.astype(jnp.float32), y)
    if spec.recipe.bias_in_product:
      scaled = bias * x.scale * along_last(w.scale, y)
      bias = bias + x.strength * (scaled - bias)
    y = y + bias
  return y.astype(spec.dtype)


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
  ``backward`` says otherwise (on CPUs a kernel may sum 24-bit integers, see
  ``ops.cpu.kernels.transposed_dot``). The residuals are the int8 codes and the
  scales, an operand that the recipe leaves in float and, for ``ste="clipped"``,
  one boolean mask per operand. Only reverse mode is supported: ``jax.jvp``
  raises a TypeError, and so does a second derivative of codes, such as in a
  gradient penalty. With ``strength=1.0`` the same product has straight-through
  derivatives of any order.

  This function does not apply the norm of the recipe; see ``normalize``.

  Args:
    x: activations, with any number of leading axes.
    w: latent weights. Each operand may be a ``QTensor`` instead, to quantize it
      once for several products. It is used unchanged and must have codes in the
      recipe's range; the gradient goes to its ``latent``.
    recipe: a ``Recipe`` or the name of one.
    bias: added after scaling, or before it under ``bias_in_product``.
    strength: ``None`` quantizes fully. A scalar in [0, 1] blends instead, in
      float: ``x + strength * (dequantize(quantize(x)) - x)`` for each operand.
    key: random key, for stochastic rounding; ``backward="int8"`` needs it for
      gradients only.
    precision: precision of products with an operand in float, forward and
      backward.
    dtype: dtype of the result; by default the promotion of the inputs. Scales
      are computed from the inputs as given, before any cast.

  Returns:
    The product, in ``dtype``.

  Raises:
    ValueError: for shapes that do not match, an unknown recipe, a missing key,
      or an inexact ``compute="float"`` (see ``choose_compute``).
    TypeError: for unsupported derivatives, and for complex numbers unless the
      recipe is "float".

  Example:
    >>> import jax
    >>> from bitnet_jax.ops import bit_dot
    >>> x = jax.numpy.array([[1.0, 2.0]])
    >>> w = jax.numpy.array([[1.0, -1.0], [1.0, 1.0]])
    >>> bit_dot(x, w, "b158").round(1).tolist()
    [[3.0, 1.0]]
  """
  if x.ndim < 1 or w.ndim != 2 or x.shape[-1] != w.shape[0]:
    raise ValueError(
      f"bit_dot takes x [*batch, K] and w [K, N], not {x.shape} and {w.shape}"
    )
  quantized = _quantize(x, w, recipe, (x.ndim - 1,), strength, key)
  options = {"key": key, "precision": precision, "dtype": dtype}
  return multiply(*quantized, bias=bias, **options)


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

  Formulas, gradients and residuals are those of ``bit_dot``. One activation
  scale is shared by a whole example, over space and channels.

  Args:
    x: activations with one batch axis and one or more spatial axes.
    w: latent weights. Each operand may be a ``QTensor``, see ``bit_dot``.
    recipe: a ``Recipe`` or the name of one.
    window_strides: as in ``jax.lax.conv_general_dilated``, like the next four.
    padding: "SAME", "VALID", or a (low, high) pair for each spatial axis.
    lhs_dilation: dilation of the input.
    rhs_dilation: dilation of the window.
    feature_group_count: number of groups of channels.
    bias: as in ``bit_dot``, like the other arguments and the errors.
    strength: fraction of quantization.
    key: random key.
    precision: precision of convolutions with an operand in float.
    dtype: dtype of the result.

  Example:
    >>> import jax
    >>> from bitnet_jax.ops import bit_conv
    >>> images, w = jax.numpy.ones((2, 8, 8, 3)), jax.numpy.ones((3, 3, 3, 4))
    >>> y = bit_conv(images, w, "b158", window_strides=(1, 1), padding="VALID")
    >>> y.shape
    (2, 6, 6, 4)
  """
  if x.ndim != w.ndim or x.ndim < 3:
    raise ValueError(
      "bit_conv takes x [batch, *spatial, c_in] and w [*window, c_in / groups,"
      f" c_out], not {x.shape} and {w.shape}"
    )
  quantized = _quantize(x, w, recipe, range(1, x.ndim), strength, key)
  window = Window(
    window_strides, padding, lhs_dilation, rhs_dilation, feature_group_count
  )
  options = {"key": key, "precision": precision, "dtype": dtype}
  return multiply(*quantized, window=window, bias=bias, **options)


def _quantize(x, w, recipe, axes, strength, key):
  recipe = get_recipe(recipe)
  x_key, w_key = split_key(key)
  return (
    input_operand(x, recipe, axes=axes, strength=strength, key=x_key),
    weight_operand(w, recipe, strength=strength, key=w_key),
    recipe,
  )
