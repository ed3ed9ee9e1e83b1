"""Feed-forward layers of transformers, gated and plain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from bitnet_jax import choices
from bitnet_jax.layers.dense import default_kernel_init
from bitnet_jax.layers.projections import (
  make_dense,
  no_partitioning,
  share_input,
)
from bitnet_jax.quantizers.recipe import Rules


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


class FeedForward(nn.Module):
  """Two layers, ``down(activation(up(x)))``, or three with a gate.

  Gated, it is ``down(activation(gate(x)) * up(x))`` (GLU variants, 2002.05202).

  Attributes:
    width: of the hidden layer.
    kind: a name in ``KINDS``.
    use_bias: whether the layers have biases.
    norm: makes the norm in front of ``down``, from its name; ``None`` for none.
    dtype: see ``Attention``, like the rest.
    param_dtype: see ``Attention``.
    kernel_init: see ``Attention``.
    partition: see ``Attention``.
    recipe: rules on the paths of the layers, or one recipe.
  """

  width: int
  kind: str = "swiglu"
  use_bias: bool = False
  norm: Callable[[str], nn.Module] | None = None
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: nn.initializers.Initializer = default_kernel_init
  partition: Callable[..., Any] = no_partitioning
  recipe: Rules = "b158"

  @nn.compact
  def __call__(
    self, x: Float[Array, "*batch d"], *, strength: ArrayLike | None = None
  ) -> Float[Array, "*batch d"]:
    """Returns an array like ``x``; see ``BitDense`` for ``strength``."""
    kind = choices.pick(KINDS, self.kind, key="kind")
    d = x.shape[-1]
    names = ("gate", "up") if kind.gated else ("up",)
    shared = share_input(self, x, names, self.recipe, strength)
    hidden = [
      make_dense(self, name, self.width, ("embed", "mlp"))(
        shared, strength=strength
      )
      for name in names
    ]
    y = kind.activation(hidden[0])
    if kind.gated:
      y = y * hidden[1]
    if self.norm is not None:
      y = self.norm("sub_norm")(y)
    down = make_dense(self, "down", d, ("mlp", "embed"))
    return down(y, strength=strength)
