"""Trained parameters without latent weights: packed codes and their scales."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from bitnet_jax.inference.tensors import is_nnx_model
from bitnet_jax.layers.introspection import (
  BitLayer,
  find_layers,
  replace_kernels,
)
from bitnet_jax.models.registry import example_call
from bitnet_jax.ops.packing import pack_kernel
from bitnet_jax.quantizers.quantizer import TERNARY_RANGE
from bitnet_jax.types import Packed, QTensor


def freeze(
  variables: Any,
  model: Any = None,
  *example: Any,
  **more: Any,
) -> Any:
  """Replaces latent kernels by their codes, packed if they are ternary.

  Of a Linen model, ``freeze(variables, model)`` returns variables that take the
  place of the others in any call, with the same outputs, bit for bit under
  ``jit``. Of an NNX model, which holds its variables, ``freeze(model)`` returns
  a copy in evaluation mode (``model.eval()``), with the same outputs. Codes and
  scales are those of the latent weights: to quantize ternary values again would
  give another scale. Kernels that are rounded stochastically in training are
  rounded to nearest. ``QTensor.dequantize`` returns a frozen kernel as floats.

  Args:
    variables: of the Linen model, ``{"params": ...}`` and other collections,
      which stay as they are; or an NNX model.
    model: any Linen module with layers of this package in it. For an NNX model
      this is the first argument of the example, if there is one.
    *example: arguments of a call, which tell the layers that it runs; arrays
      may be ``jax.ShapeDtypeStruct``. A model of this package needs none, nor
      does an NNX model, unless the sizes of its stacked kernels are ambiguous.
      With one, layers are found that compute their kernels.
    **more: keyword arguments, likewise.

  Returns:
    The variables, or the NNX model, with ``QTensor`` kernels: ternary codes as
    ``Packed`` in the layout "quad", others as int8. Frozen kernels stay as they
    are.

  Raises:
    TypeError: for a model that is no module.
    ValueError: for variables without parameters, another's Linen model without
      an example, or a model in which nothing is quantized, or in which a layer
      multiplies something else than the kernel that is stored.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> from bitnet_jax import BitDense
    >>> from bitnet_jax.inference import freeze
    >>> net, x = nn.Sequential([BitDense(8)]), jax.numpy.ones((1, 4))
    >>> variables = net.init(jax.random.key(0), x)
    >>> frozen = freeze(variables, net, x)
    >>> frozen["params"]["layers_0"]["kernel"].codes.dtype
    dtype('int8')
    >>> net.apply(frozen, x).shape
    (1, 8)
  """
  if is_nnx_model(variables):
    given = () if model is None else (model, *example)
    return _freeze_nnx(variables, given, more)
  _check(variables, model)
  variables = nn.unbox(dict(variables))
  known = not example and not more
  if known:
    example, more = example_call(model, variables["params"])
  # Models of this package multiply their stored kernels.
  layers = find_layers(model, example, more, follow=not known)
  params = freeze_kernels(layers, variables["params"])
  return {**variables, "params": params}


def _freeze_nnx(model: Any, args: Sequence[Any], kwargs: Any) -> Any:
  """Returns a frozen copy of an NNX model."""
  from bitnet_jax.nnx import introspection

  layers = introspection.bit_layers(model, *args, **kwargs)
  variables = introspection.linen_variables(model)
  params = freeze_kernels(layers, variables.get("params", {}))
  return introspection.frozen_like(model, {**variables, "params": params})


def _check(variables, model):
  """Raises an error unless these are a Linen module and its variables."""
  if not isinstance(model, nn.Module):
    name = getattr(model, "__name__", type(model).__name__)
    raise TypeError(
      f"model is {name}, not an instance of a Linen module"
      " (flax.linen.Module); an NNX model, which holds its variables, is given"
      " alone: freeze(model)"
    )
  if not isinstance(variables, Mapping) or "params" not in variables:
    found = type(variables).__name__
    if isinstance(variables, Mapping):
      names = ", ".join(map(repr, sorted(variables)))
      found = f"a mapping of {names or 'nothing'}"
    raise ValueError(
      "variables must be a mapping with 'params', as model.init returns; this"
      f" is {found}"
    )


def freeze_kernels(
  layers: Sequence[BitLayer], params: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns parameters with ``QTensor`` kernels, packed where ternary.

  Args:
    layers: layers of the model.
    params: its parameters, without boxes.
  """
  quantized = [layer for layer in layers if layer.recipe.weights is not None]
  if not quantized:
    raise ValueError(
      "no layer of the model quantizes its kernel, so that there is nothing to"
      f" freeze; its layers: {[layer.path for layer in layers]}"
    )
  computed = [layer.path for layer in quantized if not layer.is_stored]
  if computed:
    raise ValueError(
      "these layers do not multiply their stored kernel, but one that a mask,"
      " nn.WeightNorm or another transform of parameters makes of it, so that"
      f" codes cannot stand in its place: {', '.join(computed)}; apply the"
      " transform to the parameters first, or give these layers the recipe"
      " 'float'"
    )
  kernels = [_stored(layer, params) for layer in quantized]
  frozen = jax.jit(_freeze, static_argnums=0)(tuple(quantized), kernels)
  paths = [layer.path for layer in quantized]
  return replace_kernels(params, dict(zip(paths, frozen, strict=True)))


def _stored(layer: BitLayer, params: Mapping[str, Any]) -> Any:
  try:
    return layer.kernel(params)
  except (KeyError, TypeError) as error:
    raise ValueError(
      f"the model has a layer {layer.path!r}, whose kernel is not among the"
      f" parameters; at their top there are: {', '.join(params)}"
    ) from error


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
  stack = [axis % q.ndim for axis in layer.stack_axes]
  return dataclasses.replace(q, qvalue=pack_kernel(q.codes, stack=stack))
