"""Language models on documents: causal, masked, and span corruption."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bitnet_jax import choices
from bitnet_jax.data.batches import masking, packing, spans
from bitnet_jax.data.batches.order import Examples
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer
from bitnet_jax.data.views import documents as text
from bitnet_jax.train.config.settings import (
  RunContext,
  Settings,
  TaskSpec,
  check_least,
)
from bitnet_jax.train.tasks import base, scores
from bitnet_jax.train.tasks.facts import SplitFacts
from bitnet_jax.train.tasks.text_options import TextOptions
from bitnet_jax.train.tasks.token_prediction import (
  TokenOptions,
  TokenPrediction,
  eval_batches_of,
  token_data,
)

PACKING = ("stream", "documents")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentOptions(TextOptions):
  """The keys of the group ``data`` that all three tasks have.

  Attributes:
    source: "embedded:pydoc", "file:PATH" or "tfds:NAME", see ``load_corpus``.
    documents: what a document of a ".txt" is, see ``load_corpus``; ``None`` for
      the whole file.
    marker: ends a document if they are "marked".
    column: where the text of tables stands.
    skip_empty: whether to leave out empty documents, which are an error else.
    seq_len: tokens a row.
    packing: whether rows are cut out of one "stream" of documents, or hold
      "documents", as many as fit, that do not see each other.
  """

  documents: str | None
  marker: str
  column: str
  skip_empty: bool
  seq_len: int
  packing: str

  def __post_init__(self):
    super().__post_init__()
    check_least("data", self, seq_len=1)
    choices.check(self.packing, PACKING, key="data.packing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalOptions(DocumentOptions):
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingOptions(TokenOptions):
  """The group ``task`` of "masked_lm".

  Attributes:
    mask_rate: fraction of the tokens that are targets.
    mask_share: fraction of the targets that are replaced by the token mask.
    random_share: fraction of the targets that are replaced by any token; the
      rest stay.
    predictions: how many targets a row has at most. The head
      then costs as many logits a row, in place of ``data.seq_len``; about
      one and a half times ``mask_rate`` of the row is rarely too few. ``None``
      for any number.
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
    check_least("task", self, mask_share=0, random_share=0)
    if self.mask_share + self.random_share > 1 + 1e-9:
      raise ValueError(
        f"task.mask_share is {self.mask_share} and task.random_share is"
        f" {self.random_share}; together they must be at most 1"
      )
    if self.predictions is not None:
      check_least("task", self, predictions=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanOptions(TokenOptions):
  """The group ``task`` of "span_corruption".

  Attributes:
    noise_density: fraction of the tokens that are taken out.
    mean_span: mean length of a span, which is taken out as a whole.
    num_sentinels: of the vocabulary, at least one for each span of a row.
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
    check_least("task", self, mean_span=1, num_sentinels=1)


@dataclasses.dataclass(frozen=True)
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


def _load(
  settings: Settings,
  context: RunContext,
  make_examples: Callable[[Ragged, Tokenizer], Examples],
  *,
  num_sentinels: int = 0,
  eval_stride: int | None = None,
  counts_words: bool = False,
) -> base.TaskData:
  """Loads documents as rows of tokens.

  Args:
    settings: the config.
    context: see ``RunContext``.
    make_examples: from documents and a tokenizer to rows.
    num_sentinels: of the vocabulary.
    eval_stride: of the rows that are evaluated; ``None`` as in training.
    counts_words: whether to count words and bytes.
  """
  data: DocumentOptions = settings.data
  data.check_fits(settings.model, "seq_len")
  corpus = _load_corpus(data, context)
  tokenizer = data.load_tokenizer(
    lambda: corpus.splits["train"].texts, context, num_sentinels=num_sentinels
  )

  def make(split: str) -> Examples:
    texts = corpus.splits[split].texts
    tokens = tokenizer.encode_ragged(texts, where="document")
    return make_examples(tokens, tokenizer)

  # Of all splits, so that a mistake is found before training.
  examples = data.by_split(corpus.splits, make)

  def eval_batches(split: str):
    found: Any = examples[split]
    if eval_stride is not None:
      found = dataclasses.replace(found, stride=eval_stride)
    return eval_batches_of(settings, context, found)

  facts: dict[str, Any] = {"fingerprint": corpus.fingerprint}
  if counts_words:
    facts["splits"] = {
      split: SplitFacts(
        examples=len(examples[split]),
        # The end of a line counts as a word, as is the custom ("<eos>").
        words=texts.num_words + texts.num_lines,
        bytes=texts.num_bytes,
      )
      for split, texts in corpus.splits.items()
    }
  return token_data(
    settings,
    context,
    examples,
    tokenizer,
    eval_batches=eval_batches,
    length=data.seq_len,
    **facts,
  )


def _load_corpus(data: DocumentOptions, context: RunContext) -> text.Corpus:
  """Loads the documents, as the run in the folder did.

  Lines were the documents of a ".txt" before the whole file was.
  """

  def load(documents: str | None) -> text.Corpus:
    return text.load_corpus(
      data.source,
      data.cuts(),
      documents=documents,
      marker=data.marker,
      column=data.column,
      skip_empty=data.skip_empty,
    )

  corpus = load(data.documents)
  if not context.recorded or context.recorded == corpus.fingerprint:
    return corpus
  if data.documents is None and text.holds_plain_text(data.source):
    with contextlib.suppress(ValueError):  # Of blank lines, for instance.
      by_line = load("lines")
      if by_line.fingerprint == context.recorded:
        return by_line
  return corpus


def load_causal(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the data of a causal language model; see ``TaskSpec``."""
  data: CausalOptions = settings.data
  whole = data.packing == "documents"
  pack = packing.packed if whole else packing.chunks
  return _load(
    settings,
    context,
    functools.partial(pack, seq_len=data.seq_len),
    eval_stride=data.eval_stride,
    counts_words=True,
  )


def load_masked(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the data of a masked language model; see ``TaskSpec``."""
  data: DocumentOptions = settings.data
  options: MaskingOptions = settings.task.options
  check_least("data", data, seq_len=3)
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

  return _load(settings, context, make_examples)


def load_spans(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the data of span corruption; see ``TaskSpec``."""
  data: DocumentOptions = settings.data
  options: SpanOptions = settings.task.options
  if data.packing != "stream":
    raise ValueError(
      f"data.packing is {data.packing!r}; span corruption takes 'stream' only"
    )
  check_least("data", data, seq_len=4)
  make_examples = functools.partial(
    spans.span_corruption,
    input_len=data.seq_len,
    noise_density=options.noise_density,
    mean_span=options.mean_span,
  )
  return _load(
    settings, context, make_examples, num_sentinels=options.num_sentinels
  )


CAUSAL = TaskSpec(CausalOptions, TokenOptions, load_causal, CausalPrediction)
MASKED = TaskSpec(DocumentOptions, MaskingOptions, load_masked, TokenPrediction)
SPANS = TaskSpec(DocumentOptions, SpanOptions, load_spans, TokenPrediction)
