"""Wide multi-layer perceptron over bags of tokens."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Num

from bitnet_jax.models.base import Call, Model, ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideMlpConfig(ModelConfig):
  """Sizes of a ``WideMlp``.

  Attributes:
    width: units of the hidden layer.
    dropout: rate after it, in [0, 1).
    vocab_size: number of tokens.
    num_classes: number of outputs.
    dtype: dtype of activations, a name in ``DTYPES``.
    param_dtype: dtype of the latent weights, a name in ``DTYPES``.
  """

  width: int
  vocab_size: int
  num_classes: int


class WideMlp(Model):
  """A weighted sum of embeddings, ReLU, dropout, and a linear ``head``.

  The table ``embedding`` [vocab_size, width] is drawn from the standard normal
  distribution and stays in float; it is the first layer of a perceptron whose
  input is a bag of tokens.

  Attributes:
    cfg: sizes.
    recipe: one recipe for the head, or (pattern, recipe) rules on its name.

  References:
    Galke and Scherp, Bag-of-Words vs. Graph vs. Sequence in Text
    Classification, 2022, https://arxiv.org/abs/2109.03777.
  """

  cfg: WideMlpConfig

  @nn.compact
  def __call__(
    self,
    tokens: Int[Array, "entries"],
    segments: Int[Array, "entries"],
    weights: Num[Array, "entries"],
    *,
    num_documents: int,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Float[Array, "num_documents num_classes"]:
    """Returns logits.

    An entry says that a token occurs in a document; several may say so.

    Args:
      tokens: the token of each entry, in [0, vocab_size).
      segments: the document of each entry, not negative; entries of documents
        from ``num_documents`` on are left out.
      weights: of the entries; for a mean of embeddings, one divided by the
        length of the document.
      num_documents: number of documents.
      deterministic: whether dropout is off.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.
    """
    cfg, dtype = self.cfg, self.cfg.dtypes["dtype"]
    table: Any = self.param(
      "embedding",
      nn.with_logical_partitioning(nn.initializers.normal(1.0), (None, "mlp")),
      (cfg.vocab_size, cfg.width),
      cfg.dtypes["param_dtype"],
    )
    # Each row is read once, and the sums over documents are one product.
    bags = jnp.zeros((num_documents, cfg.vocab_size), dtype)
    bags = bags.at[segments, tokens].add(weights.astype(dtype), mode="drop")
    x = nn.relu(bags @ table.astype(dtype))
    x = nn.with_logical_constraint(x, ("batch", "mlp"))
    x = nn.Dropout(cfg.dropout, deterministic=deterministic)(x)
    head = self.dense("head", cfg.num_classes, ("embed", None))
    return head(x, strength=strength)

  @nn.nowrap
  def example_call(self, params: Any) -> Call:
    """Returns arguments of a call, as shapes: one token in one document."""
    del params
    number = jax.ShapeDtypeStruct((1,), jnp.int32)
    weight = jax.ShapeDtypeStruct((1,), jnp.float32)
    return (number, number, weight), {"num_documents": 1}
