"""Predicting tokens: the loss and the metrics of all language models."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bitnet_jax.train.config.settings import check_least
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.losses import check_smoothing, cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenOptions:
  """The keys of the group ``task`` that all language models have.

  Attributes:
    label_smoothing: see ``losses.cross_entropy``; in training only.
    z_loss: see ``losses.cross_entropy``; in training only.
  """

  label_smoothing: float
  z_loss: float

  def __post_init__(self):
    check_smoothing(self.label_smoothing)
    check_least("task", self, z_loss=0)


def most_likely(
  logits: Float[Array, "*batch vocab"],
) -> Int[Array, "*batch"]:
  """Returns ``jnp.argmax(logits, -1)``, and ``vocab`` where there is a NaN.

  XLA's CPU backend looks for an index one element after the other, but for a
  maximum or a minimum at many at once.

  Args:
    logits: a row for each prediction.
  """
  vocab = logits.shape[-1]
  best = jnp.max(logits, axis=-1, keepdims=True)
  ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  found = jnp.where(logits == best, ids, vocab)
  # A maximum of many may lose NaN, a minimum of integers does not.
  found = jnp.min(jnp.where(jnp.isnan(logits), -1, found), axis=-1)
  return jnp.where(found < 0, vocab, found)


def arguments(
  batch: Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
  """Returns what a model is called with: an encoder-decoder, or another."""
  if "inputs" in batch:
    inputs = (batch["inputs"], batch["tokens"])
    return inputs, {"input_mask": batch["input_mask"]}
  known = ("segment_ids", "type_ids", "positions", "places")
  return (batch["tokens"],), {n: batch[n] for n in known if n in batch}


def shapes_of(
  batch: Mapping[str, Any],
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shapes and dtypes of one row of a batch."""
  return {
    name: jax.ShapeDtypeStruct((1, *array.shape[1:]), array.dtype)
    for name, array in batch.items()
  }


@dataclasses.dataclass(frozen=True)
class TokenTask:
  """What all tasks on tokens have.

  Attributes:
    model: maps tokens to logits.
    example: one row of a batch, as shapes; see ``shapes_of``.
  """

  model: nn.Module
  example: Mapping[str, jax.ShapeDtypeStruct]

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """See ``base.Task``."""
    zeros = {n: jnp.zeros(s.shape, s.dtype) for n, s in self.example.items()}
    args, kwargs = arguments(zeros)
    return self.model.init(key, *args, **kwargs)

  def weight(self, batch: base.Batch) -> jax.Array:
    """Returns the number of targets, or rows, that count; 1 for none.

    A small batch may have nothing masked: its loss is then 0, not NaN.
    """
    return jnp.maximum(jnp.sum(batch["mask"]), 1)


@dataclasses.dataclass(frozen=True)
class TokenPrediction(TokenTask):
  """Cross-entropy of "targets", weighted by "mask"; "loss" and "accuracy".

  Attributes:
    options: of the loss.
  """

  options: TokenOptions

  def totals(
    self,
    params: Any,
    variables: Any,
    batch: base.Batch,
    *,
    key: jax.Array,
    deterministic: bool,
    strength: jax.Array | None,
  ) -> tuple[base.Totals, Any]:
    """See ``base.Task``."""
    args, kwargs = arguments(batch)
    logits, variables = base.apply(
      self.model,
      params,
      variables,
      *args,
      key=key,
      deterministic=deterministic,
      strength=strength,
      **kwargs,
    )
    extras = {}
    if not deterministic:
      extras = {
        "label_smoothing": self.options.label_smoothing,
        "z_loss": self.options.z_loss,
      }
    losses = cross_entropy(logits, batch["targets"], **extras)
    hits = most_likely(logits) == batch["targets"]
    totals = {
      "loss": jnp.sum(losses * batch["mask"]),
      "accuracy": jnp.sum(hits * batch["mask"]),
      "weight": jnp.sum(batch["mask"]) if deterministic else self.weight(batch),
    }
    return totals, variables
