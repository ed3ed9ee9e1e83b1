"""Masked language models."""

import dataclasses

from bitnet_jax.data.batches import masking, packing
from bitnet_jax.data.batches.order import Examples
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.language import LanguageOptions, load_documents
from bitnet_jax.train.tasks.token_prediction import (
  TokenOptions,
  TokenPrediction,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingOptions(TokenOptions):
  """The group ``task`` of "masked_lm".

  Attributes:
    mask_rate: fraction of the tokens that are targets.
    mask_share: fraction of the targets that are replaced by the token mask.
    random_share: fraction of the targets that are replaced by any token; the
      rest stay.
    predictions: largest number of targets in a row; the head computes logits
      for these only. About one and a half times ``mask_rate`` of the row is
      rarely too few. ``None`` for any number.
  """

  mask_rate: float
  mask_share: float
  random_share: float
  predictions: int | None

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.mask_rate <= 1:
      raise ValueError(
        f"task.mask_rate is {self.mask_rate}; it must lie in (0, 1]"
      )
    groups.check_least(
      "task", self, mask_share=0, random_share=0, predictions=1
    )
    if self.mask_share + self.random_share > 1 + 1e-9:
      raise ValueError(
        f"task.mask_share is {self.mask_share} and task.random_share is"
        f" {self.random_share}; together they must be at most 1"
      )


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the data of a masked language model; see ``TaskSpec``."""
  data: LanguageOptions = settings.data
  options: MaskingOptions = settings.task.options
  groups.check_least("data", data, seq_len=3)
  if options.predictions is not None and options.predictions > data.seq_len:
    raise ValueError(
      f"task.predictions is {options.predictions}, but a row has"
      f" {data.seq_len} tokens (data.seq_len)"
    )

  def make_examples(documents: Ragged, tokenizer: Tokenizer) -> Examples:
    rows = packing.encoder_rows(
      documents,
      tokenizer,
      seq_len=data.seq_len,
      joined=data.packing == "stream",
    )
    return masking.masked(
      rows,
      tokenizer,
      rate=options.mask_rate,
      mask_share=options.mask_share,
      random_share=options.random_share,
      predictions=options.predictions,
    )

  return load_documents(settings, context, make_examples)


SPEC = TaskSpec(
  LanguageOptions, MaskingOptions, load, TokenPrediction, ("encoder",)
)
