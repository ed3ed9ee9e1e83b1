"""Lists the quantized layers of a model: path, recipe, axes of the kernel."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import core, traverse_util

from bitnet_jax.layers import provenance
from bitnet_jax.layers.dense import QuantizedLayer
from bitnet_jax.layers.interception import Interception
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.types import QTensor


@dataclasses.dataclass(frozen=True)
class BitLayer:
  """A quantized layer of a model.

  Attributes:
    path: slash-joined module names from the top of the model; "" for a layer
      that is the model.
    recipe: its recipe.
    scale_axes: axes of the stored kernel that share a scale, counted from the
      last.
    stack_axes: its axes that stack kernels, likewise: those of ``nn.scan`` and
      ``nn.vmap``, and batch dimensions of a layer.
    is_stored: whether the layer multiplies the stored kernel, so that codes can
      replace it; not with a mask or under ``nn.WeightNorm``.
  """

  path: str
  recipe: Recipe
  scale_axes: tuple[int, ...]
  stack_axes: tuple[int, ...] = ()
  is_stored: bool = True

  def kernel(self, params: Any) -> Any:
    """Returns the kernel, out of the parameters of the model."""
    return kernel_at(params, self.path)

  def quantize_kernel(self, params: Any) -> QTensor:
    """Returns codes and scale of the kernel in the model's parameters."""
    return self.quantize(self.kernel(params))

  def quantize(self, kernel: Any) -> QTensor:
    """Returns codes and scale of a kernel, rounded to nearest.

    Those of a frozen kernel are returned as they are.

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
    axes, stack = (
      tuple(sorted(axis % kernel.ndim for axis in given))
      for given in (self.scale_axes, self.stack_axes)
    )
    return quantizer.quantize(
      kernel, axes=axes, measured=_measured(quantizer, kernel, axes, stack)
    )


def _measured(quantizer, kernel, axes, stack):
  """Measures each of stacked kernels by itself, as the layer does.

  One reduction over the stack would add the terms of a mean in another order.
  Other measures do not depend on the order.
  """
  if not stack or quantizer.measure != "absmean":
    return quantizer.measured(kernel, axes=axes)
  leading = tuple(range(len(stack)))
  kernels = jnp.moveaxis(kernel, stack, leading)
  shape = kernels.shape[: len(stack)]
  own = [i for i in range(kernel.ndim) if i not in stack]
  alone = tuple(own.index(axis) for axis in axes)
  found = [
    quantizer.measured(one, axes=alone)
    for one in kernels.reshape(-1, *kernels.shape[len(stack) :])
  ]
  measured = jnp.stack(found).reshape(*shape, *found[0].shape)
  return jnp.moveaxis(measured, leading, stack)


def quantize_kernels(
  layers: Sequence[BitLayer],
  params: Mapping[str, Any],
  *,
  training: bool = True,
) -> dict[str, QTensor]:
  """Quantizes the kernels of a model, once for all products with them.

  Leaves out kernels that the recipe leaves in float, that are frozen, or that a
  layer does not multiply as they are stored. In training it also leaves out
  kernels with stochastic rounding, which layers round for each product;
  otherwise these are rounded to nearest, as by ``freeze``.

  Args:
    layers: the layers of the model, from ``bit_layers``.
    params: its parameters.
    training: whether the codes are for a training step.

  Returns:
    Codes and scales by path of the layer, for ``with_codes``.
  """
  return {
    layer.path: layer.quantize_kernel(params)
    for layer in layers
    if layer.is_stored
    and (quantizer := layer.recipe.weights)
    and not (training and quantizer.needs_key)
    and not isinstance(layer.kernel(params), QTensor)
  }


def with_codes(
  params: Mapping[str, Any],
  codes: Mapping[str, QTensor],
  gradient_dtype: Any = None,
) -> dict[str, Any]:
  """Returns parameters with codes in place of their kernels.

  Gradients pass straight through to the kernels in ``params``. Any model with
  layers of this package takes the result in place of its parameters.

  Args:
    params: parameters of the model.
    codes: by path of the layer, from ``quantize_kernels``.
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
    *args: arguments of its call; arrays may be ``jax.ShapeDtypeStruct``.
    **kwargs: keyword arguments of its call, likewise.

  Returns:
    One entry a layer, those of the recipe "float" included.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> from bitnet_jax import BitDense
    >>> from bitnet_jax.layers import bit_layers
    >>> net = nn.Sequential([BitDense(8), nn.relu, BitDense(2, recipe="float")])
    >>> layers = bit_layers(net, jax.ShapeDtypeStruct((1, 4), "float32"))
    >>> [layer.path for layer in layers]
    ['layers_0', 'layers_2']
  """
  return find_layers(model, args, kwargs, follow=False)


def find_layers(
  model: nn.Module,
  args: Sequence[Any],
  kwargs: Mapping[str, Any],
  *,
  follow: bool,
) -> list[BitLayer]:
  """Lists layers as ``bit_layers`` does.

  Args:
    model: any Linen module.
    args: of its call.
    kwargs: of its call.
    follow: whether to find out for every layer if it multiplies the stored
      kernel, which takes another trace; else only where shapes do not tell
      which axes of a stored kernel stack several.
  """
  met: dict[str, BitLayer] = {}
  shapes: dict[str, tuple[int, ...]] = {}

  def note(module, run):
    y, path = run(), "/".join(module.path)
    shapes[path] = _kernel(module).shape
    met[path] = _described(module, path, len(shapes[path]))
    return y

  arrays, merge = separate_arrays((tuple(args), dict(kwargs)))

  def call(scope, note, arrays):
    args, kwargs = merge(arrays)
    return _watch(model, scope, note, args, kwargs)

  def initialize(arrays):
    _, variables = core.init(call)(jax.random.key(0), note, arrays)
    return nn.unbox(variables)

  variables = jax.eval_shape(initialize, arrays)
  flat = traverse_util.flatten_dict({**variables.get("params", {})}, sep="/")
  stored = {
    path: getattr(flat.get(f"{path}/kernel".lstrip("/")), "shape", ())
    for path in met
  }
  axes = {path: only_place(stored[path], shapes[path]) for path in met}
  if follow or any(one is None for one in axes.values()):
    axes = _followed(call, variables, arrays, shapes)
  return [
    placed(layer, len(shapes[path]), len(stored[path]), axes[path])
    for path, layer in met.items()
  ]


def _followed(call, variables, arrays, shapes):
  """Returns the axes of stored kernels that layers see, by another trace."""

  def note(module, run):
    y, kernel = run(), _kernel(module)
    if kernel is not None:  # Where a transform makes one, it runs layers twice.
      provenance.mark(kernel, "/".join(module.path))
    return y

  def apply(variables, arrays):
    mutable = [name for name in variables if name != "params"]
    run = core.apply(call, mutable=mutable)
    return run(variables, note, arrays, rngs={"params": jax.random.key(0)})

  paths = {path: len(shape) for path, shape in shapes.items()}
  return provenance.axes_of_kernels(apply, variables, arrays, paths=paths)


def separate_arrays(
  tree: Any,
) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
  """Returns the arrays in a tree, and a function that replaces them.

  Arrays are leaves with a shape, so also ``jax.ShapeDtypeStruct``.
  """
  leaves, structure = jax.tree.flatten(tree)
  places = [i for i, leaf in enumerate(leaves) if hasattr(leaf, "shape")]

  def merge(arrays):
    merged = dict(enumerate(leaves)) | dict(zip(places, arrays, strict=True))
    return jax.tree.unflatten(structure, merged.values())

  return [leaves[i] for i in places], merge


def _described(module: QuantizedLayer, path: str, ndim: int) -> BitLayer:
  """Returns a layer with the axes, from the first, of the kernel it sees."""
  n_stack, _ = module.stack_and_output_axes()
  return BitLayer(
    path=path,
    recipe=module.find_recipe(),
    scale_axes=module.scale_axes(ndim),
    stack_axes=tuple(range(n_stack)),
    is_stored=getattr(module, "mask", None) is None,
  )


def placed(
  layer: BitLayer, ndim: int, stored: int, axes: tuple[int, ...] | None
) -> BitLayer:
  """Returns a layer with axes of its stored kernel, counted from the last.

  Args:
    layer: with axes of the kernel that it sees, counted from the first.
    ndim: of that kernel.
    stored: number of axes of the stored kernel.
    axes: which of these are the layer's own; ``None`` if the layer computes its
      kernel from what is stored.
  """
  own, stored = (tuple(range(ndim)), ndim) if axes is None else (axes, stored)
  alone = own[len(layer.stack_axes) :]
  return dataclasses.replace(
    layer,
    scale_axes=tuple(own[i] - stored for i in layer.scale_axes),
    stack_axes=tuple(i - stored for i in range(stored) if i not in alone),
    is_stored=layer.is_stored and axes is not None,
  )


def _watch(model, scope, note, args, kwargs):
  """Calls a model in a scope, and ``note(layer, run)`` for its layers."""

  def watch(next_fun, args, kwargs, context):
    module = context.module
    if isinstance(module, QuantizedLayer) and context.method_name == "__call__":
      return note(module, lambda: next_fun(*args, **kwargs))
    return next_fun(*args, **kwargs)

  with Interception(scope).calls(watch):
    return model.clone(parent=scope)(*args, **kwargs)


def _kernel(module):
  return nn.unbox(module.get_variable("params", "kernel"))


def only_place(
  stored: tuple[int, ...], own: tuple[int, ...]
) -> tuple[int, ...] | None:
  """Returns which axes of a stored kernel are its own, if sizes tell."""
  places = [
    axes
    for axes in itertools.combinations(range(len(stored)), len(own))
    if tuple(stored[i] for i in axes) == own
  ]
  return places[0] if len(places) == 1 else None
