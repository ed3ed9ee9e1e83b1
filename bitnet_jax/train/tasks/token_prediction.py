"""Predicting tokens: loss, metrics and batches of all language models."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bitnet_jax.data.batches import order
from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings
from bitnet_jax.train.tasks import base, scores
from bitnet_jax.train.tasks.facts import DataFacts, sizes_of, specs_of
from bitnet_jax.train.tasks.losses import LossOptions, cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenOptions(LossOptions):
  """The keys of the group ``task`` that all language models have.

  Attributes:
    z_loss: see ``losses.cross_entropy``; in training only.
  """

  z_loss: float

  def __post_init__(self):
    super().__post_init__()
    groups.check_least("task", self, z_loss=0)


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


class TokenTask(base.Supervised):
  """A task whose model takes tokens."""

  def inputs(self, batch: Mapping[str, Any]) -> base.Inputs:
    """Returns the tokens that an encoder-decoder, or another model, takes."""
    if "inputs" in batch:
      inputs = (batch["inputs"], batch["tokens"])
      return inputs, {"input_mask": batch["input_mask"]}
    known = ("segment_ids", "type_ids", "positions", "places")
    return (batch["tokens"],), {n: batch[n] for n in known if n in batch}


class TokenPrediction(TokenTask):
  """Cross-entropy of "targets", weighted by "mask"."""

  @property
  def metric_names(self) -> tuple[str, ...]:
    """See ``Supervised``."""
    return ("accuracy", "loss", "perplexity")

  def sums(
    self, outputs: Any, batch: base.Batch, *, deterministic: bool
  ) -> base.Totals:
    """See ``Supervised``."""
    extras = {}
    if not deterministic:
      extras = {
        "label_smoothing": self.options.label_smoothing,
        "z_loss": self.options.z_loss,
      }
    losses = cross_entropy(outputs, batch["targets"], **extras)
    hits = most_likely(outputs) == batch["targets"]
    return {
      "loss": jnp.sum(losses * batch["mask"]),
      "accuracy": jnp.sum(hits * batch["mask"]),
    }

  def finish(self, split: str, sums: Mapping[str, Any]) -> dict[str, float]:
    """See ``Supervised``."""
    nll, count = float(sums["loss"]), float(sums["weight"])
    perplexity = scores.perplexity(nll, count)
    return super().finish(split, sums) | {"perplexity": perplexity}


def token_data(
  settings: Settings,
  context: RunContext,
  examples: Mapping[str, order.Examples],
  tokenizer: Tokenizer,
  *,
  evaluated: Mapping[str, order.Examples] | None = None,
  length: int,
  **facts: Any,
) -> base.TaskData:
  """Returns batches and facts of rows of tokens.

  Args:
    settings: the config.
    context: which part of a batch is this process's.
    examples: by split.
    tokenizer: of the texts.
    evaluated: the examples for evaluation, where they differ.
    length: tokens of one example, padding included.
    **facts: more fields of ``DataFacts``; "fingerprint" is that of the texts.
  """
  training = base.of_training(settings, context)

  def train_batches(seed: int):
    return order.train_batches(examples["train"], **training | {"seed": seed})

  train_batch = train_batches(settings.seed)
  evaluated = examples if evaluated is None else evaluated

  def eval_batches(split: str) -> Sequence[order.Batch]:
    part = base.of_evaluation(settings, context)
    return order.eval_batches(evaluated[split], **part)

  first = train_batch(0)
  own: dict[str, Any] = {
    "splits": sizes_of(examples),
    "example": specs_of(first),
    "vocab_size": tokenizer.vocab_size,
  }
  if "inputs" in first:
    own["start_id"] = int(first["tokens"][0, 0])
  facts["fingerprint"] += f" vocabulary {tokenizer.fingerprint}"
  return base.TaskData(
    facts=DataFacts(**own | facts),
    train_batch=train_batch,
    eval_batches=eval_batches,
    tokenizer=tokenizer,
    tokens=length,
    reseed=train_batches,
  )
