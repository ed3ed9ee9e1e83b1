"""The product of two operands, each an array, codes or a blend; and a bias."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Key

from bitnet_jax.ops.operands import Blend, Operand
from bitnet_jax.ops.placement import varying_alike
from bitnet_jax.ops.straight_through import (
  Spec,
  along_last,
  straight_through_product,
)
from bitnet_jax.ops.xla_conv import Window
from bitnet_jax.quantizers.quantizer import check_real
from bitnet_jax.quantizers.recipe import Recipe
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

  Two arrays give the full-precision twin, bit for bit. Codes and codes, or an
  array, have a straight-through gradient; see ``bit_dot``.

  Args:
    x: of ``input_operand``.
    w: of ``weight_operand``.
    recipe: of both: how the product is computed, and its gradients.
    window: of a convolution.
    bias: see ``bit_dot``.
    key: random key, for ``backward="int8"``.
    precision: see ``bit_dot``.
    dtype: see ``bit_dot``.

  Raises:
    TypeError: see ``bit_dot``.
    ValueError: likewise.
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
