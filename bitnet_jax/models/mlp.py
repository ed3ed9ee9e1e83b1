"""Multi-layer perceptron."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.models.base import Call, Model, ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpConfig(ModelConfig):
  """Sizes of an ``Mlp``.

  Attributes:
    width: units of each hidden layer.
    depth: number of hidden layers.
    dropout: rate after each hidden layer, in [0, 1).
    num_classes: number of outputs.
    dtype: dtype of activations, a name in ``DTYPES``.
    param_dtype: dtype of the latent weights, a name in ``DTYPES``.
  """

  width: int
  depth: int
  num_classes: int


class Mlp(Model):
  """Hidden layers ``layer_0``, ``layer_1``, ... with ReLU, then ``head``.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths.
  """

  cfg: MlpConfig

  @nn.compact
  def __call__(
    self,
    x: Num[Array, "batch *features"],
    *,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "batch num_classes"]:
    """Returns logits; each example is flattened first."""
    x = x.reshape(x.shape[0], -1)
    for i in range(self.cfg.depth):
      axes = (None if i == 0 else "embed", "mlp")
      layer = self.dense(f"layer_{i}", self.cfg.width, axes)
      x = nn.relu(layer(x, strength=strength))
      x = nn.with_logical_constraint(x, ("batch", "mlp"))
      x = nn.Dropout(self.cfg.dropout, deterministic=deterministic)(x)
    head = self.dense("head", self.cfg.num_classes, ("embed", None))
    return head(x, strength=strength)

  @nn.nowrap
  def example_call(self, params: Any) -> Call:
    """Returns arguments of a call, as shapes: one example."""
    d_in = params["layer_0"]["kernel"].shape[0]
    return (jax.ShapeDtypeStruct((1, d_in), jnp.float32),), {}
