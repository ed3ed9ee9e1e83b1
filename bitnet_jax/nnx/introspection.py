"""Lists the quantized layers of an NNX model: path, recipe, axes of kernels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx, traverse_util

from bitnet_jax.layers import provenance
from bitnet_jax.layers.dense import kernel_scale_axes
from bitnet_jax.layers.introspection import (
  BitLayer,
  only_place,
  placed,
  separate_arrays,
)
from bitnet_jax.nnx.layers import (
  TRACED_PATH,
  BitConv,
  BitLinear,
  BitLinearGeneral,
)
from bitnet_jax.nnx.variables import (
  linen_variables,
  path_name,
  with_linen_variables,
)
from bitnet_jax.types import QTensor

_LAYERS = (BitLinear, BitLinearGeneral, BitConv)
# They multiply a kernel that they compute from the stored one.
_WRAPPERS = (nnx.WeightNorm, nnx.SpectralNorm)


class Kernel(NamedTuple):
  """The kernel of a layer.

  Attributes:
    shape: shape of one kernel.
    n_stack: number of its leading axes that stack kernels.
    n_out: number of its output axes.
    stored: shape that is stored, with the axes of ``nnx.vmap`` and
      ``nnx.scan``.
  """

  shape: tuple[int, ...]
  n_stack: int
  n_out: int
  stored: tuple[int, ...]


def bit_layers(model: nnx.Module, *args: Any, **kwargs: Any) -> list[BitLayer]:
  """Lists the quantizable layers of an NNX model.

  Args:
    model: any NNX model, with layers of this package in it.
    *args: arguments of a call; arrays may be ``jax.ShapeDtypeStruct``. With
      them the model is traced, which finds layers that multiply something else
      than the kernel that is stored. They are needed only where sizes do not
      tell which axis of a kernel stacks several.
    **kwargs: keyword arguments, likewise.

  Returns:
    One entry a layer, those of the recipe "float" included. A layer that stands
    in several places is one.

  Raises:
    ValueError: for a kernel that is shared with something that needs it
      otherwise, or that needs an example and has none.

  Example:
    >>> from flax import nnx
    >>> from bitnet_jax.nnx import BitLinear, bit_layers
    >>> rngs = nnx.Rngs(0)
    >>> net = nnx.Sequential(BitLinear(4, 8, rngs=rngs), nnx.relu)
    >>> [layer.path for layer in bit_layers(net)]
    ['layers/0']
  """
  layers = find_layers(model)
  kernels = {path: _kernel(layer) for path, layer in layers.items()}
  axes = {path: only_place(k.stored, k.shape) for path, k in kernels.items()}
  if args or kwargs:
    axes = _followed(model, kernels, args, kwargs)
  else:
    _check_places(axes, kernels)
  wrapped = tuple(
    path_name((*path, "layer_instance", ""))
    for path, module in nnx.iter_modules(model)
    if isinstance(module, _WRAPPERS)
  )
  found = []
  for path, layer in layers.items():
    kernel, recipe = kernels[path], layer.recipe
    ndim, stored = len(kernel.shape), len(kernel.stored)
    described = BitLayer(
      path=path,
      recipe=recipe,
      scale_axes=kernel_scale_axes(recipe, ndim, kernel.n_stack, kernel.n_out),
      stack_axes=tuple(range(kernel.n_stack)),
      is_stored=getattr(layer, "mask", None) is None
      and not f"{path}/".startswith(wrapped),
    )
    found.append(placed(described, ndim, stored, axes[path]))
  return found


def find_layers(model: nnx.Module) -> dict[str, Any]:
  """Returns the quantizable layers by path, one for each stored kernel.

  Raises:
    ValueError: if a layer shares its kernel with a module that would read its
      codes otherwise.
  """
  holders: dict[int, list[tuple[str, Any, str]]] = {}
  for path, module in nnx.iter_modules(model):
    for name, value in vars(module).items():
      if isinstance(value, nnx.Variable):
        holder = path_name(path), module, name
        holders.setdefault(id(value), []).append(holder)
  found = {}
  for sharing in holders.values():
    owners = [
      (path, module)
      for path, module, name in sharing
      if name == "kernel" and isinstance(module, _LAYERS)
    ]
    if owners:
      # NNX lists the kernel at the first of its places.
      path, layer = owners[0]
      _check_sharing(path, layer, sharing)
      found[path] = layer
  return found


def _check_sharing(path: str, layer: Any, sharing: Sequence[Any]) -> None:
  """Raises a ValueError unless all holders of a kernel read the same codes."""
  for other_path, other, _ in sharing:
    same = isinstance(other, _LAYERS) and other.recipe == layer.recipe
    if not layer.recipe.is_float and not (
      same and _kernel(other) == _kernel(layer)
    ):
      raise ValueError(
        f"{path!r} shares its kernel with {other_path!r}, which has another"
        " recipe or shape, or is no layer of bitnet_jax.nnx, and cannot read"
        " codes in its place; give each its own kernel"
      )


def _kernel(layer: Any) -> Kernel:
  """Returns shape and axes of a layer's kernel."""
  stored = tuple(layer.kernel.get_value().shape)
  if isinstance(layer, BitConv):
    return Kernel(tuple(layer.kernel_shape), 0, 1, stored)
  if isinstance(layer, BitLinear):
    return Kernel((layer.in_features, layer.out_features), 0, 1, stored)
  batch = tuple(layer.batch_axis.values())
  shape = (*batch, *layer.in_features, *layer.out_features)
  return Kernel(shape, len(batch), len(layer.out_features), stored)


def _check_places(
  axes: Mapping[str, Sequence[int] | None], kernels: Mapping[str, Kernel]
) -> None:
  for path, found in axes.items():
    if found is None:
      kernel = kernels[path]
      raise ValueError(
        f"the kernel of {path!r} is stored as {[*kernel.stored]} and used as"
        f" {[*kernel.shape]}, so that sizes do not tell which axes stack"
        " kernels; give example inputs of the model, arrays or"
        " jax.ShapeDtypeStruct"
      )


def _followed(
  model: nnx.Module,
  kernels: Mapping[str, Kernel],
  args: Sequence[Any],
  kwargs: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the axes of stored kernels that layers see, by a trace."""
  model = nnx.clone(model)
  model.eval()
  for path, layer in find_layers(model).items():
    setattr(layer, TRACED_PATH, path)
  flat = traverse_util.flatten_dict(linen_variables(model), sep="/")
  # Of frozen kernels the shape is enough, which is that of latent ones.
  variables = traverse_util.unflatten_dict(
    {
      name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
      if isinstance(leaf, QTensor)
      else leaf
      for name, leaf in flat.items()
    },
    sep="/",
  )
  arrays, merge = separate_arrays((tuple(args), dict(kwargs)))

  def call(variables, arrays):
    args, kwargs = merge(arrays)
    return with_linen_variables(model, variables)(*args, **kwargs)

  sizes = {path: len(kernel.shape) for path, kernel in kernels.items()}
  return provenance.axes_of_kernels(call, variables, arrays, paths=sizes)


def frozen_like(model: nnx.Module, variables: Mapping[str, Any]) -> nnx.Module:
  """Returns a copy of an NNX model with frozen variables, for inference.

  Args:
    model: any NNX model, also abstract.
    variables: frozen ones, by collection and path.
  """
  frozen = with_linen_variables(model, variables)
  modules: Any = (nnx.iter_modules(one) for one in (model, frozen))
  for (_, layer), (_, copy) in zip(*modules, strict=True):
    if isinstance(layer, _LAYERS):
      kernel = layer.kernel.get_value()
      is_latent = not isinstance(kernel, QTensor)
      if is_latent and isinstance(copy.kernel.get_value(), QTensor):
        # Codes have no dtype, which is part of that of the output.
        copy.param_dtype = kernel.dtype
  frozen.eval()
  return frozen


def check_concrete(model: nnx.Module) -> None:
  """Raises a ValueError for a model with arrays that have no values."""
  abstract = [
    path_name(path)
    for path, leaf in nnx.to_flat_state(nnx.state(model))
    if isinstance(
      leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf,
      jax.ShapeDtypeStruct,
    )
  ]
  if abstract:
    raise ValueError(
      f"the model is abstract, and these have no values in the file:"
      f" {', '.join(abstract[:5])}; give a model that is not abstract"
    )
