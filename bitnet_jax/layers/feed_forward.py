"""Feed-forward layers of transformers, gated and plain."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from bitnet_jax import choices
from bitnet_jax.layers.projections import Projections


def squared_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """Returns ``max(x, 0) ** 2`` (Primer, 2109.08668)."""
  return jnp.square(jax.nn.relu(x))


class Kind(NamedTuple):
  """A kind of feed-forward layer."""

  activation: Callable[[jax.Array], jax.Array]
  gated: bool


KINDS: dict[str, Kind] = {
  "relu": Kind(jax.nn.relu, gated=False),
  "gelu": Kind(jax.nn.gelu, gated=False),
  "relu2": Kind(squared_relu, gated=False),
  "reglu": Kind(jax.nn.relu, gated=True),
  "geglu": Kind(jax.nn.gelu, gated=True),
  "swiglu": Kind(jax.nn.silu, gated=True),
  "relu2_gated": Kind(squared_relu, gated=True),
}


class FeedForward(Projections):
  """Two layers, ``down(activation(up(x)))``, or three with a gate.

  Gated, it is ``down(activation(gate(x)) * up(x))`` (GLU variants, 2002.05202).
  An optional norm precedes ``down``.

  Attributes:
    width: width of the hidden layer.
    kind: a name in ``KINDS``.
    use_bias: whether the dense layers have biases.
    norm: makes the norm from its name; ``None`` for no norm.
    dtype: dtype of the activations.
    param_dtype: dtype of the latent weights.
    kernel_init: initializer of the kernels.
    partition: names the axes of a kernel for sharding, as
      ``nn.with_logical_partitioning`` does.
    recipe: rules on the paths of the dense layers, or one recipe.
  """

  width: int
  kind: str = "swiglu"

  @nn.compact
  def __call__(
    self, x: Float[Array, "*batch d"], *, strength: ArrayLike | None = None
  ) -> Float[Array, "*batch d"]:
    """Returns an array like ``x``.

    Args:
      x: input.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.
    """
    kind = choices.pick(KINDS, self.kind, key="kind")
    layers = [
      self.dense(name, self.width, ("embed", "mlp"))
      for name in (("gate", "up") if kind.gated else ("up",))
    ]
    shared = self.share_input(x, layers, strength)
    y, *rest = [layer(shared, strength=strength) for layer in layers]
    y = kind.activation(y)
    if kind.gated:
      y = y * rest[0]
    return self.project_output(
      "down", y, x.shape[-1], ("mlp", "embed"), strength
    )
