"""Softmax classification, the base of all tasks with classes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.losses import cross_entropy

# Classes of which each pair is counted: 16 MB in float32.
MOST_COUNTED = 2048


class Classifier(base.Supervised):
  """Softmax classification; metrics "loss" and "accuracy".

  A batch has "labels", and "mask" where some of them do not count.
  """

  @property
  def scores(self) -> Mapping[str, Callable[[np.ndarray], float]]:
    """Further metrics by name, from the confusion matrix of a split."""
    return {}

  @property
  def metric_names(self) -> tuple[str, ...]:
    """See ``Supervised``."""
    return tuple(sorted(("accuracy", "loss", *self.scores)))

  def sums(
    self, outputs: Any, batch: base.Batch, *, deterministic: bool
  ) -> base.Totals:
    """See ``Supervised``.

    In evaluation "confusion" [truth, prediction] is summed too, where there are
    scores of it, or if the task is ``detailed`` and has at most
    ``MOST_COUNTED`` classes.
    """
    labels, mask = batch["labels"], base.target_mask(batch)
    smoothing = 0.0 if deterministic else self.options.label_smoothing
    losses = cross_entropy(outputs, labels, label_smoothing=smoothing)
    predicted = jnp.argmax(outputs, -1)
    totals = {
      "loss": jnp.sum(losses * mask),
      "accuracy": jnp.sum((predicted == labels) * mask),
    }
    n = self.facts.num_classes or 0
    counts = self.scores or (self.detailed and n <= MOST_COUNTED)
    if deterministic and counts:
      confusion = jnp.zeros((n, n), jnp.float32)
      totals["confusion"] = confusion.at[labels, predicted].add(mask)
    return totals

  def finish(self, split: str, sums: Mapping[str, Any]) -> dict[str, float]:
    """See ``Supervised``."""
    metrics = super().finish(split, sums)
    for name, score in self.scores.items():
      metrics[name] = score(sums["confusion"])
    return metrics
