"""Causal language models."""

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import Any

from bitnet_jax.data.batches import packing
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import base, scores
from bitnet_jax.train.tasks.language import LanguageOptions, load_documents
from bitnet_jax.train.tasks.token_prediction import (
  TokenOptions,
  TokenPrediction,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalOptions(LanguageOptions):
  """The group ``data`` of the task "causal_lm".

  Attributes:
    eval_stride: in evaluation of a stream, how far rows are apart; with less
      than ``seq_len`` each token is predicted from more context. ``None`` for
      ``seq_len``.
  """

  eval_stride: int | None

  def __post_init__(self):
    super().__post_init__()
    if self.eval_stride is None:
      return
    if self.packing == "documents":
      raise ValueError(
        f"data.eval_stride is {self.eval_stride}, which needs data.packing"
        " 'stream'; it is 'documents'"
      )
    if not 1 <= self.eval_stride <= self.seq_len:
      raise ValueError(
        f"data.eval_stride is {self.eval_stride}; it must be in"
        f" 1..{self.seq_len} (data.seq_len)"
      )


class CausalPrediction(TokenPrediction):
  """Prediction of each token once: the text as a whole has a likelihood."""

  @property
  def metric_names(self) -> tuple[str, ...]:
    """See ``Supervised``."""
    return (*super().metric_names, "bits_per_byte", "word_perplexity")

  def finish(self, split: str, sums: Mapping[str, Any]) -> dict[str, float]:
    """See ``Supervised``."""
    size, nll = self.facts.splits[split], float(sums["loss"])
    # Finite, so that no run ends for it: where nothing separates words, a word
    # is a line, and a perplexity of those exceeds what a float holds.
    perplexity = min(scores.perplexity(nll, size.words), sys.float_info.max)
    return super().finish(split, sums) | {
      "word_perplexity": perplexity,
      "bits_per_byte": scores.bits_per_byte(nll, size.bytes),
    }


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the data of a causal language model; see ``TaskSpec``."""
  data: CausalOptions = settings.data
  rows = {"documents": packing.packed, "stream": packing.chunks}
  return load_documents(
    settings,
    context,
    functools.partial(rows[data.packing], seq_len=data.seq_len),
    eval_stride=data.eval_stride,
    counts_words=True,
  )


SPEC = TaskSpec(
  CausalOptions, TokenOptions, load, CausalPrediction, ("decoder",)
)
