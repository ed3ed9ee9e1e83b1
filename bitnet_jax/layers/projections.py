"""Dense layers inside other layers and models."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from bitnet_jax.layers.dense import BitDense
from bitnet_jax.ops import quantize_input
from bitnet_jax.quantizers.recipe import Rules
from bitnet_jax.types import QTensor

Axes = tuple[str | None, ...]
Initializer = nn.initializers.Initializer
default_kernel_init = nn.initializers.lecun_normal()


def no_partitioning(init: Initializer, axes: Axes) -> Initializer:
  """Returns an initializer as it is, without names of the axes."""
  del axes
  return init


class DenseFactory(nn.Module):
  """Base of layers and models with dense layers, which are all made here."""

  @nn.nowrap
  @abc.abstractmethod
  def dense_options(self) -> dict[str, Any]:
    """Returns the arguments that all dense layers of this module share.

    Those of ``BitDense``, and ``partition``, which names the axes of a kernel
    for sharding, as ``nn.with_logical_partitioning`` does.
    """

  @nn.nowrap
  def dense(
    self, name: str | None, features: int, axes: Axes = (), **options: Any
  ) -> BitDense:
    """Returns a dense layer of this module, with the rules in its ``recipe``.

    Args:
      name: of the layer; ``None`` in a ``setup``, where its attribute names it.
      features: size of its output.
      axes: logical axes of its kernel.
      **options: in place of ``dense_options``, or beside them.
    """
    module: Any = self
    options = self.dense_options() | options
    partition = options.pop("partition", no_partitioning)
    kernel_init = options.pop("kernel_init", default_kernel_init)
    return BitDense(
      features,
      kernel_init=partition(kernel_init, axes),
      recipe=module.recipe,
      name=name,
      **options,
    )

  @nn.nowrap
  def share_input(
    self,
    x: Float[Array, "*batch d"],
    layers: Sequence[BitDense],
    strength: ArrayLike | None,
  ) -> Float[Array, "*batch d"] | QTensor:
    """Normalizes and quantizes the input of several dense layers once.

    Where their recipes differ, leave inputs in float, or are being phased in,
    each layer gets ``x`` as it is.
    """
    recipe, *others = {layer.find_recipe() for layer in layers}
    if others or recipe.acts is None or strength is not None:
      return x
    key = self.make_rng("quantize") if recipe.acts.needs_key else None
    return quantize_input(x, recipe, key=key)


class Projections(DenseFactory):
  """Options of a layer whose dense layers are alike.

  Attributes:
    use_bias: whether the dense layers have biases.
    norm: makes the norm in front of the output projection, from its name;
      ``None`` for no norm there.
    dtype: dtype of the activations.
    param_dtype: dtype of the latent weights.
    kernel_init: initializer of the kernels.
    partition: names the axes of a kernel for sharding, as
      ``nn.with_logical_partitioning`` does.
    recipe: rules on the paths of the dense layers, or one recipe.
  """

  _: dataclasses.KW_ONLY
  use_bias: bool = False
  norm: Callable[[str], nn.Module] | None = None
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Initializer = default_kernel_init
  partition: Callable[..., Any] = no_partitioning
  recipe: Rules = "b158"

  @nn.nowrap
  @abc.abstractmethod
  def dense_options(self) -> dict[str, Any]:
    """Returns the arguments that all dense layers of this layer share."""
    names = ("use_bias", "dtype", "param_dtype", "kernel_init", "partition")
    return {name: getattr(self, name) for name in names}

  @nn.nowrap
  def project_output(
    self,
    name: str,
    x: Float[Array, "*batch d"],
    features: int,
    axes: Axes,
    strength: ArrayLike | None,
  ) -> Float[Array, "*batch features"]:
    """Applies the norm, if there is one, and the dense layer ``name``."""
    if self.norm is not None:
      x = self.norm("sub_norm")(x)
    return self.dense(name, features, axes)(x, strength=strength)
