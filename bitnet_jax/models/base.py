"""Base classes of the models and of their sizes."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bitnet_jax import choices
from bitnet_jax.layers.projections import DenseFactory
from bitnet_jax.quantizers.recipe import Rules

# Positional and keyword arguments of a model, with shapes for arrays.
Call = tuple[tuple[Any, ...], dict[str, Any]]
DTYPES = {
  "float32": jnp.float32,
  "bfloat16": jnp.bfloat16,
  "float16": jnp.float16,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """Sizes of a model; each model adds fields of its own.

  Integers must be at least 1, or what ``metadata`` of their field says.

  Attributes:
    dropout: rate, in [0, 1).
    dtype: dtype of activations, a name in ``DTYPES``.
    param_dtype: dtype of the latent weights, a name in ``DTYPES``.

  Raises:
    ValueError: on construction, naming the field, its value and the choices.
  """

  dropout: float = 0.0
  dtype: str = "float32"
  param_dtype: str = "float32"

  def __post_init__(self):
    self.check_choices(dtype=DTYPES, param_dtype=DTYPES)
    for field in dataclasses.fields(self):
      size, least = getattr(self, field.name), field.metadata.get("least", 1)
      size = min(size, default=0) if isinstance(size, tuple) else size
      if type(size) is int and size < least:
        raise ValueError(
          f"model.{field.name} is {size}; it must be at least {least}"
        )
    if not 0 <= self.dropout < 1:
      raise ValueError(
        f"model.dropout is {self.dropout}; it must lie in [0, 1)"
      )

  def check_choices(self, **tables: Any) -> None:
    """Raises a ValueError for a field with a value that is not in its table."""
    for name, table in tables.items():
      choices.check(getattr(self, name), table, key=f"model.{name}")

  @property
  def dtypes(self) -> dict[str, Any]:
    """The two dtypes, as keyword arguments of a layer."""
    return {
      "dtype": DTYPES[self.dtype],
      "param_dtype": DTYPES[self.param_dtype],
    }


class Model(DenseFactory):
  """Base of all models.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths from the top of the model.
  """

  cfg: Any
  recipe: Rules

  @nn.nowrap
  def dense_options(self) -> dict[str, Any]:
    """Returns the arguments that all dense layers of the model share."""
    return {"partition": nn.with_logical_partitioning, **self.cfg.dtypes}

  @nn.nowrap
  def example_call(self, params: Any) -> Call:
    """Returns the smallest arguments of a call, told from the parameters alone.

    Those of a model of text: one token. Kernels may be frozen.
    """
    del params
    return (jax.ShapeDtypeStruct((1, 1), jnp.int32),), {}
