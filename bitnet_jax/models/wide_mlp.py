"""Wide multi-layer perceptron over bags of pieces of text."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Num

from bitnet_jax.layers import BitDense
from bitnet_jax.models import sizes
from bitnet_jax.quantizers.recipe import Rules, recipe_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideMlpConfig:
  """Sizes of a ``WideMlp``.

  Attributes:
    width: units of the hidden layer.
    dropout: rate after it, in [0, 1).
    vocab_size: number of pieces.
    num_classes: number of outputs.
    dtype: dtype of activations, a name in ``DTYPES``.
    param_dtype: dtype of the latent weights, a name in ``DTYPES``.
  """

  width: int
  dropout: float
  vocab_size: int
  num_classes: int
  dtype: str
  param_dtype: str

  def __post_init__(self):
    sizes.check_positive(width=self.width, vocab_size=self.vocab_size)
    sizes.check_rate(dropout=self.dropout)
    sizes.get_dtype(self.dtype, key="model.dtype")
    sizes.get_dtype(self.param_dtype, key="model.param_dtype")


class WideMlp(nn.Module):
  """A weighted sum of embeddings, ReLU, dropout, and a linear ``head``.

  The table ``embedding`` [vocab_size, width] is drawn from the standard normal
  distribution and stays in float; it is the first layer of a perceptron whose
  input is a bag of pieces.

  Attributes:
    cfg: sizes.
    recipe: one recipe for the head, or (pattern, recipe) rules on its name.

  References:
    Galke and Scherp, Bag-of-Words vs. Graph vs. Sequence in Text
    Classification, 2022, https://arxiv.org/abs/2109.03777.
  """

  cfg: WideMlpConfig
  recipe: Rules

  @nn.compact
  def __call__(
    self,
    pieces: Int[Array, "entries"],
    segments: Int[Array, "entries"],
    weights: Num[Array, "entries"],
    *,
    num_documents: int,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Float[Array, "num_documents num_classes"]:
    """Returns logits.

    An entry says that a piece occurs in a document; several may say so.

    Args:
      pieces: the piece of each entry, in [0, vocab_size).
      segments: the document of each entry, not negative; entries of documents
        from ``num_documents`` on are left out.
      weights: what each entry counts for; for a mean of embeddings, one by the
        length of the document.
      num_documents: number of documents.
      deterministic: whether nothing is dropped.
      strength: share of quantization in force, see ``bit_dot``.
    """
    cfg = self.cfg
    dtype = sizes.get_dtype(cfg.dtype, key="model.dtype")
    param_dtype = sizes.get_dtype(cfg.param_dtype, key="model.param_dtype")
    table: Any = self.param(
      "embedding",
      nn.with_logical_partitioning(nn.initializers.normal(1.0), (None, "mlp")),
      (cfg.vocab_size, cfg.width),
      param_dtype,
    )
    # Each row is read once, and the sums over documents are one product.
    bags = jnp.zeros((num_documents, cfg.vocab_size), dtype)
    bags = bags.at[segments, pieces].add(weights.astype(dtype), mode="drop")
    x = nn.relu(bags @ table.astype(dtype))
    x = nn.with_logical_constraint(x, ("batch", "mlp"))
    x = nn.Dropout(cfg.dropout, deterministic=deterministic)(x)
    init = nn.initializers.lecun_normal()
    return BitDense(
      cfg.num_classes,
      dtype=dtype,
      param_dtype=param_dtype,
      kernel_init=nn.with_logical_partitioning(init, ("embed", None)),
      recipe=recipe_at(self.recipe, "head"),
      name="head",
    )(x, strength=strength)
