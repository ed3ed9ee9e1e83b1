"""Which layers of a model are quantized, where, and by which recipe."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.core import init

from bitnet_jax.layers.arguments import as_tuple
from bitnet_jax.layers.conv import BitConv
from bitnet_jax.layers.dense import BitDense, BitDenseGeneral
from bitnet_jax.layers.interception import intercept_calls, mark
from bitnet_jax.quantizers.recipe import Recipe, get_recipe
from bitnet_jax.types import QTensor

BIT_LAYERS = (BitDense, BitDenseGeneral, BitConv)


@dataclasses.dataclass(frozen=True)
class BitLayer:
  """A layer that was met while a model was traced.

  Attributes:
    path: slash-joined module names from the top of the model; "" for a layer
      that is the model.
    recipe: its recipe.
    scale_axes: axes of the kernel that share a scale, counted from the last
      one, so that they also fit kernels stacked by ``nn.scan``.
  """

  path: str
  recipe: Recipe
  scale_axes: tuple[int, ...]

  def kernel(self, params: Any) -> Any:
    """Returns the latent kernel out of the parameters of the model.

    Or what stands in its place in another tree of that structure.
    """
    return kernel_at(params, self.path)

  def quantize_kernel(self, params: Any) -> QTensor:
    """Returns codes and scale of the kernel; see ``quantize``."""
    return self.quantize(self.kernel(params))

  def quantize(self, kernel: Any) -> QTensor:
    """Returns codes and scale of a kernel, rounded to nearest.

    Of a frozen kernel those that it has, never others.

    Raises:
      ValueError: if the recipe leaves the kernel in float.
    """
    quantizer = self.recipe.weights
    if quantizer is None:
      raise ValueError(f"the recipe of {self.path} leaves its kernel in float")
    if isinstance(kernel, QTensor):
      return QTensor(kernel.qvalue, kernel.scale)
    if quantizer.needs_key:
      quantizer = dataclasses.replace(quantizer, rounding="nearest")
    kernel = jax.lax.stop_gradient(kernel)
    axes = tuple(axis % kernel.ndim for axis in self.scale_axes)
    return quantizer.quantize(
      kernel, axes=axes, measured=_measured(quantizer, kernel, axes)
    )


def _measured(quantizer, kernel, axes):
  """Measures each of stacked kernels alone, as the layer itself would.

  In one reduction of the stack, terms of a mean are added in another order;
  other measures are the same in any order.
  """
  stack = kernel.shape[: min(axes)]
  if not stack or quantizer.measure != "absmean":
    return quantizer.measured(kernel, axes=axes)
  alone = tuple(axis - len(stack) for axis in axes)
  found = [
    quantizer.measured(one, axes=alone)
    for one in kernel.reshape(-1, *kernel.shape[len(stack) :])
  ]
  return jnp.stack(found).reshape(*stack, *found[0].shape)


def quantize_kernels(
  layers: Sequence[BitLayer],
  params: Mapping[str, Any],
  *,
  training: bool = True,
) -> dict[str, QTensor]:
  """Quantizes the kernels of a model, once for all products with them.

  Kernels that the recipe leaves in float, or that are frozen, are left out. So
  are kernels with stochastic rounding in training, where layers draw anew for
  each product; outside of training they are rounded to nearest, as ``freeze``
  does.

  Args:
    layers: of the model, see ``bit_layers``.
    params: its parameters.
    training: whether the products are those of a training step.

  Returns:
    Codes and scales by path of the layer, for ``with_codes``.
  """
  return {
    layer.path: layer.quantize_kernel(params)
    for layer in layers
    if (quantizer := layer.recipe.weights)
    and not (training and quantizer.needs_key)
    and not isinstance(layer.kernel(params), QTensor)
  }


def with_codes(
  params: Mapping[str, Any],
  codes: Mapping[str, QTensor],
  gradient_dtype: Any = None,
) -> dict[str, Any]:
  """Returns parameters whose kernels are replaced by codes of theirs.

  Gradients pass straight through to the kernels in ``params``. Any model with
  layers of this package takes the result in place of its parameters.

  Args:
    params: of the model.
    codes: by path of the layer, see ``quantize_kernels``.
    gradient_dtype: of these gradients, until they reach ``params``; ``None``
      for that of the kernels.
  """
  latents = {path: kernel_at(params, path) for path in codes}
  return replace_kernels(
    params,
    {
      path: dataclasses.replace(
        q, latent=latents[path].astype(gradient_dtype or latents[path].dtype)
      )
      for path, q in codes.items()
    },
  )


def kernel_at(params: Any, path: str) -> Any:
  """Returns the kernel of the layer at a path, out of a model's parameters."""
  for name in filter(None, path.split("/")):
    params = params[name]
  return params["kernel"]


def replace_kernels(
  params: Mapping[str, Any], kernels: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns parameters with other kernels, given by the path of the layer."""
  flat: dict[Any, Any] = dict(traverse_util.flatten_dict(dict(params)))
  for path, kernel in kernels.items():
    flat[(*filter(None, path.split("/")), "kernel")] = kernel
  return traverse_util.unflatten_dict(flat)


def bit_layers(model: nn.Module, *args: Any, **kwargs: Any) -> list[BitLayer]:
  """Lists the quantizable layers that a call of ``model`` runs, in order.

  Args:
    model: any Linen module, with layers of this package in it.
    *args: arguments of its call, arrays or ``jax.ShapeDtypeStruct``.
    **kwargs: keyword arguments of its call, likewise.

  Returns:
    One entry a layer, those of the recipe "float" included.
  """
  found: dict[str, BitLayer] = {}

  def note(next_fun, args, kwargs, context):
    module = context.module
    if isinstance(module, BIT_LAYERS) and context.method_name == "__call__":
      path, recipe = "/".join(module.path), get_recipe(module.recipe)
      y = next_fun(*args, **kwargs)
      ndim = nn.unbox(module.get_variable("params", "kernel")).ndim
      axes = _scale_axes(module, recipe, ndim)
      found[path] = BitLayer(path, recipe, axes)
      return y
    return next_fun(*args, **kwargs)

  leaves, structure = jax.tree.flatten((args, kwargs))
  is_array = [hasattr(leaf, "shape") for leaf in leaves]

  def call(scope, arrays):
    given = iter(arrays)
    merged = [
      next(given) if is_array[i] else leaf for i, leaf in enumerate(leaves)
    ]
    args, kwargs = jax.tree.unflatten(structure, merged)
    places = mark(scope)
    with intercept_calls(note, places):
      return model.clone(parent=scope)(*args, **kwargs)

  jax.eval_shape(
    lambda arrays: init(call)(jax.random.key(0), arrays),
    [leaf for i, leaf in enumerate(leaves) if is_array[i]],
  )
  return list(found.values())


def _scale_axes(module, recipe, ndim):
  """Axes of the kernel that share a scale; stacked kernels never do."""
  first, n_out = 0, 1
  if isinstance(module, BitDenseGeneral):
    first = len(as_tuple(module.batch_dims))
    n_out = len(as_tuple(module.features))
  per_tensor = recipe.weights is None or recipe.weights.axis is None
  return tuple(range(first - ndim, 0 if per_tensor else -n_out))
