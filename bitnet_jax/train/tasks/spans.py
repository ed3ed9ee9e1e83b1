"""Span corruption: an encoder-decoder restores spans of its text, as T5."""

import dataclasses
import functools

from bitnet_jax.data.batches import spans
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.language import LanguageOptions, load_documents
from bitnet_jax.train.tasks.token_prediction import (
  TokenOptions,
  TokenPrediction,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanOptions(TokenOptions):
  """The group ``task`` of "span_corruption".

  Attributes:
    noise_density: fraction of the tokens that are masked.
    mean_span: mean length of a masked span, in tokens.
    num_sentinels: tokens of the vocabulary that stand for spans, at least one
      for each span of a row.
  """

  noise_density: float
  mean_span: float
  num_sentinels: int

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.noise_density < 1:
      raise ValueError(
        f"task.noise_density is {self.noise_density}; it must lie in (0, 1)"
      )
    groups.check_least("task", self, mean_span=1, num_sentinels=1)


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the data of span corruption; see ``TaskSpec``."""
  data: LanguageOptions = settings.data
  options: SpanOptions = settings.task.options
  if data.packing != "stream":
    raise ValueError(
      f"data.packing is {data.packing!r}; span corruption takes 'stream' only"
    )
  groups.check_least("data", data, seq_len=4)
  make_examples = functools.partial(
    spans.span_corruption,
    input_len=data.seq_len,
    noise_density=options.noise_density,
    mean_span=options.mean_span,
  )
  return load_documents(
    settings, context, make_examples, num_sentinels=options.num_sentinels
  )


SPEC = TaskSpec(
  LanguageOptions, SpanOptions, load, TokenPrediction, ("encoder_decoder",)
)
