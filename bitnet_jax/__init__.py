"""Ternary ("1.58-bit", BitNet) neural networks in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from bitnet_jax.public import RECIPES as RECIPES
  from bitnet_jax.public import BitConv as BitConv
  from bitnet_jax.public import BitDense as BitDense
  from bitnet_jax.public import BitDenseGeneral as BitDenseGeneral
  from bitnet_jax.public import Packed as Packed
  from bitnet_jax.public import QTensor as QTensor
  from bitnet_jax.public import Quantizer as Quantizer
  from bitnet_jax.public import Recipe as Recipe

__version__ = "0.1.0"
__all__ = [
  "RECIPES",
  "BitConv",
  "BitDense",
  "BitDenseGeneral",
  "Packed",
  "QTensor",
  "Quantizer",
  "Recipe",
]
_MODULES = ("backend", "choices", "layers", "ops", "quantizers", "types")


def __getattr__(name: str) -> Any:
  """Imports a public name on first use.

  JAX and Flax take seconds to import. Programs handle Ctrl-C before that.
  """
  if name in __all__:
    return getattr(importlib.import_module("bitnet_jax.public"), name)
  if name in _MODULES:
    return importlib.import_module(f"bitnet_jax.{name}")
  raise AttributeError(f"module 'bitnet_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__, *_MODULES})
