"""Multi-layer perceptron."""

import dataclasses

import flax.linen as nn
from jaxtyping import Array, ArrayLike, Num

from bitnet_jax.layers import BitDense
from bitnet_jax.models import sizes
from bitnet_jax.quantizers.recipe import Rules, recipe_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpConfig:
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
  dropout: float
  num_classes: int
  dtype: str
  param_dtype: str

  def __post_init__(self):
    sizes.check_positive(width=self.width, depth=self.depth)
    sizes.check_rate(dropout=self.dropout)
    sizes.get_dtype(self.dtype, key="model.dtype")
    sizes.get_dtype(self.param_dtype, key="model.param_dtype")


class Mlp(nn.Module):
  """Hidden layers ``layer_0``, ``layer_1``, ... with ReLU, then ``head``.

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      names.
  """

  cfg: MlpConfig
  recipe: Rules

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
      x = self._dense(self.cfg.width, axes, f"layer_{i}")(x, strength=strength)
      x = nn.with_logical_constraint(nn.relu(x), ("batch", "mlp"))
      x = nn.Dropout(self.cfg.dropout, deterministic=deterministic)(x)
    head = self._dense(self.cfg.num_classes, ("embed", None), "head")
    return head(x, strength=strength)

  def _dense(self, features, axes, name):
    init = nn.initializers.lecun_normal()
    return BitDense(
      features,
      dtype=sizes.get_dtype(self.cfg.dtype, key="model.dtype"),
      param_dtype=sizes.get_dtype(
        self.cfg.param_dtype, key="model.param_dtype"
      ),
      kernel_init=nn.with_logical_partitioning(init, axes),
      recipe=recipe_at(self.recipe, name),
      name=name,
    )
