"""Trained parameters without latent weights: packed codes and their scales."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from bitnet_jax.layers.introspection import (
  BitLayer,
  bit_layers,
  replace_kernels,
)
from bitnet_jax.models.examples import example_call
from bitnet_jax.ops.packing import axis_to_pack, pack
from bitnet_jax.quantizers.quantizer import TERNARY_RANGE
from bitnet_jax.types import Packed, QTensor


def freeze(
  variables: Mapping[str, Any],
  model: nn.Module,
  *example: Any,
  **more: Any,
) -> dict[str, Any]:
  """Rounds the kernels of a model for good, and packs those that are ternary.

  The result takes the place of ``variables`` in any call of the model, which
  then computes what it computes in training when it is evaluated, bit for bit
  under ``jit``. Codes and scales are those of the latent weights: to round
  ternary values again would give another scale. Kernels that are rounded at
  random in training are rounded to nearest here.

  Args:
    variables: of the model, ``{"params": ...}`` and other collections, which
      stay as they are.
    model: any Linen module with layers of this package in it.
    *example: arguments of a call, arrays or ``jax.ShapeDtypeStruct``, which
      tell the layers that it runs; a model of this package needs none.
    **more: keyword arguments, likewise.

  Returns:
    The variables with ``QTensor`` kernels: ternary codes as ``Packed`` in the
    layout "quad", others as int8. What is frozen already stays.

  Raises:
    ValueError: for another's model without an example, or a model in which
      nothing is quantized.
  """
  variables = nn.unbox(dict(variables))
  if not example and not more:
    example, more = example_call(model, variables["params"])
  layers = bit_layers(model, *example, **more)
  params = freeze_kernels(layers, variables["params"])
  return {**variables, "params": params}


def freeze_kernels(
  layers: Sequence[BitLayer], params: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns parameters with frozen kernels; see ``freeze``.

  Args:
    layers: of the model.
    params: its parameters, without boxes.
  """
  quantized = [layer for layer in layers if layer.recipe.weights is not None]
  if not quantized:
    raise ValueError(
      "no layer of the model quantizes its kernel, so that there is nothing to"
      f" freeze; its layers: {[layer.path for layer in layers]}"
    )
  kernels = [layer.kernel(params) for layer in quantized]
  frozen = jax.jit(_freeze, static_argnums=0)(tuple(quantized), kernels)
  paths = [layer.path for layer in quantized]
  return replace_kernels(params, dict(zip(paths, frozen, strict=True)))


def _freeze(layers, kernels):
  return [
    _packed(layer, layer.quantize(kernel))
    for layer, kernel in zip(layers, kernels, strict=True)
  ]


def _packed(layer: BitLayer, q: QTensor) -> QTensor:
  assert layer.recipe.weights is not None
  is_ternary = layer.recipe.weights.range == TERNARY_RANGE
  if not is_ternary or isinstance(q.qvalue, Packed):
    return q
  return dataclasses.replace(
    q, qvalue=pack(q.codes, axis=axis_to_pack(q.shape))
  )
