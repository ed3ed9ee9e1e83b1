"""What is trained: how a batch becomes a loss and metrics."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

Batch = Mapping[str, jax.Array]
# Sums over examples; "weight" is the sum of their weights.
Totals = dict[str, jax.Array]


class Task(Protocol):
  """What the step and the loop need to know of an experiment."""

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """Returns the variables of the model."""
    ...

  def weight(self, batch: Batch) -> jax.Array:
    """Returns the sum of the weights of what the loss is averaged over."""
    ...

  def totals(
    self,
    params: Any,
    variables: Any,
    batch: Batch,
    *,
    key: jax.Array,
    deterministic: bool,
    strength: jax.Array | None,
  ) -> tuple[Totals, Any]:
    """Returns sums of metrics, "loss" and "weight" among them, and the
    variables after the call.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Classification:
  """Softmax classification; metrics "loss" and "accuracy".

  Attributes:
    model: maps standardized inputs to logits.
    example: one example's shape without the batch axis.
    mean: subtracted from the inputs, per channel (or feature), of their rank.
    std: divides them, likewise.
  """

  metric_names: ClassVar[tuple[str, ...]] = ("accuracy", "loss")

  model: nn.Module
  example: tuple[int, ...]
  mean: np.ndarray
  std: np.ndarray

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """See ``Task``."""
    return self.model.init(key, jnp.zeros((1, *self.example), jnp.float32))

  def weight(self, batch: Batch) -> jax.Array:
    """Returns the number of examples that are not padding."""
    return jnp.sum(_mask(batch))

  def totals(
    self,
    params: Any,
    variables: Any,
    batch: Batch,
    *,
    key: jax.Array,
    deterministic: bool,
    strength: jax.Array | None,
  ) -> tuple[Totals, Any]:
    """See ``Task``."""
    inputs = (batch["inputs"].astype(jnp.float32) - self.mean) / self.std
    dropout_key, quantize_key = jax.random.split(key)
    logits, new_variables = self.model.apply(
      {"params": params, **variables},
      inputs,
      deterministic=deterministic,
      strength=strength,
      rngs={"dropout": dropout_key, "quantize": quantize_key},
      mutable=[] if deterministic else list(variables),
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits.astype(jnp.float32), batch["labels"]
    )
    hits = jnp.argmax(logits, -1) == batch["labels"]
    mask = _mask(batch)
    totals = {
      "loss": jnp.sum(losses * mask),
      "accuracy": jnp.sum(hits * mask),
      "weight": jnp.sum(mask),
    }
    return totals, variables if deterministic else dict(new_variables)


def _mask(batch: Batch) -> jax.Array:
  """One for an example, zero for padding."""
  ones = jnp.ones(batch["labels"].shape, jnp.float32)
  return batch.get("mask", ones)


def averages(totals: Mapping[str, Any]) -> dict[str, Any]:
  """Divides sums by their weight."""
  return {
    name: total / totals["weight"]
    for name, total in totals.items()
    if name != "weight"
  }
