"""What a product of activations and weights is, for quantization around it."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array

from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.types import Packed, QTensor


@runtime_checkable
class Bilinear(Protocol):
  """A hashable bilinear operation; outputs end in the weights' last axis."""

  def __call__(
    self, x: Array, w: Array | Packed, *, precision: Any, dtype: Any
  ) -> Array:
    """Multiplies, accumulating in ``dtype`` (``None``: as the operands say).

    Packed codes go with an ``x`` of int8.
    """
    ...

  def input_gradient(
    self,
    g: Array,
    w: Array | QTensor,
    x: jax.ShapeDtypeStruct,
    *,
    precision: Any,
  ) -> Array:
    """Transposes by ``x``; the sums are int32 for int8 codes, else float32.

    Ternary codes may still have a scale to them, if that is a single one.
    """
    ...

  def weight_gradient(
    self,
    g: Array,
    x: Array | QTensor,
    w: jax.ShapeDtypeStruct,
    *,
    precision: Any,
  ) -> Array:
    """Transposes by ``w``, likewise; ``x`` may still have its scale to it.

    The result may have the dtype of ``w``, so that it is summed over devices in
    that.
    """
    ...

  def act_axes(self, quantizer: Quantizer, x: Array) -> tuple[int, ...]:
    """Returns the axes of ``x`` that share a scale."""
    ...

  def weight_axes(self, quantizer: Quantizer, w: Array) -> tuple[int, ...]:
    """Returns the axes of ``w`` that share a scale."""
    ...

  def terms(self, w: Array | Packed) -> int:
    """Returns how many products are added up in one output element."""
    ...

  def slow_in_int8(self, x: Array, w: Array | Packed) -> bool:
    """Says whether XLA's CPU backend lacks a fast int8 path for the shapes."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
  """What of a product is known when it is traced."""

  product: Bilinear
  recipe: Recipe
  precision: Any
  dtype: Any
