"""Language models on documents: causal, masked, and span corruption."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bitnet_jax import choices
from bitnet_jax.data.batches import masking, order, packing, spans
from bitnet_jax.data.batches.order import Examples
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer
from bitnet_jax.data.views import documents as text
from bitnet_jax.train.config.settings import Kind, Settings, Site, check_least
from bitnet_jax.train.tasks import base, scores
from bitnet_jax.train.tasks.text_options import TextOptions
from bitnet_jax.train.tasks.token_prediction import (
  TokenOptions,
  TokenPrediction,
  arguments,
  shapes_of,
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


def _build(
  settings: Settings,
  site: Site,
  *,
  examples: Callable[[Ragged, Tokenizer], Examples],
  evaluated: Callable[[Any], Examples] = lambda examples: examples,
  num_sentinels: int = 0,
  likelihood: bool = False,
) -> base.Problem:
  """Builds data, model and task.

  Args:
    settings: the config.
    site: where.
    examples: makes them of documents and a tokenizer.
    evaluated: turns examples into those that are evaluated.
    num_sentinels: of the vocabulary.
    likelihood: whether each token is predicted once, so that there is a
      likelihood of the whole text.
  """
  data: DocumentOptions = settings.data
  data.check_fits(settings.model, "seq_len")
  corpus = _load_corpus(data, site)
  tokenizer = data.load_tokenizer(
    lambda: corpus.splits["train"].texts,
    site,
    num_sentinels=num_sentinels,
  )

  def make(split: str) -> Examples:
    texts = corpus.splits[split].texts
    tokens = tokenizer.encode_ragged(texts, where="document")
    return examples(tokens, tokenizer)

  # Of all splits, so that a mistake is found before training.
  made = data.by_split(corpus.splits, make)
  batch_at = order.train_batches(
    made["train"],
    batch_size=data.batch_size,
    seed=settings.seed,
    **site.part,
  )
  example = shapes_of(batch_at(0))
  model = base.make_model(
    settings, vocab_size=tokenizer.vocab_size, num_classes=None
  )
  args, kwargs = arguments(example)
  layers = base.find_layers(settings, model, *args, **kwargs)

  def eval_batches(split: str):
    return order.eval_batches(
      evaluated(made[split]), batch_size=data.rows_of_evaluation, **site.part
    )

  def finish(split: str, sums: Mapping[str, Any]) -> dict[str, float]:
    metrics = base.averages(sums)
    nll = float(sums["loss"])
    metrics["perplexity"] = scores.perplexity(nll, float(sums["weight"]))
    if likelihood:
      documents = corpus.splits[split]
      # The end of a line counts as a word, as is the custom ("<eos>").
      words = documents.num_words + documents.num_lines
      # Finite, so that no run ends for it: where nothing separates words, a
      # word is a line, and a perplexity of those exceeds what a float holds.
      perplexity = scores.perplexity(nll, words)
      metrics["word_perplexity"] = min(perplexity, sys.float_info.max)
      metrics["bits_per_byte"] = scores.bits_per_byte(nll, documents.num_bytes)
    return {name: float(value) for name, value in metrics.items()}

  names = ("accuracy", "loss", "perplexity")
  if likelihood:
    names += ("bits_per_byte", "word_perplexity")
  return base.Problem(
    task=TokenPrediction(model, example, settings.task.options),
    layers=layers,
    splits=tuple(corpus.splits),
    num_examples=len(made["train"]),
    fingerprint=base.with_vocabulary(corpus.fingerprint, tokenizer),
    metric_names=names,
    train_batch=batch_at,
    eval_batches=eval_batches,
    finish=finish,
    tokenizer=tokenizer,
    tokens=data.seq_len,
  )


def _load_corpus(data: DocumentOptions, site: Site) -> text.Corpus:
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
  if not site.recorded or site.recorded == corpus.fingerprint:
    return corpus
  if data.documents is None and text.holds_plain_text(data.source):
    with contextlib.suppress(ValueError):  # Of blank lines, for instance.
      by_line = load("lines")
      if by_line.fingerprint == site.recorded:
        return by_line
  return corpus


def build_causal(settings: Settings, site: Site) -> base.Problem:
  """Builds a causal language model; see ``base.Problem``."""
  data: CausalOptions = settings.data

  def examples(documents: Ragged, tokenizer: Tokenizer) -> Examples:
    if data.packing == "documents":
      return packing.packed(documents, tokenizer, seq_len=data.seq_len)
    return packing.chunks(documents, tokenizer, seq_len=data.seq_len)

  def evaluated(examples: Any) -> Examples:
    if data.eval_stride is None:
      return examples
    return dataclasses.replace(examples, stride=data.eval_stride)

  return _build(
    settings,
    site,
    examples=examples,
    evaluated=evaluated,
    likelihood=True,
  )


def build_masked(settings: Settings, site: Site) -> base.Problem:
  """Builds a masked language model; see ``base.Problem``."""
  data: DocumentOptions = settings.data
  options: MaskingOptions = settings.task.options
  check_least("data", data, seq_len=3)
  if options.predictions is not None and options.predictions > data.seq_len:
    raise ValueError(
      f"task.predictions is {options.predictions}, but a row has"
      f" {data.seq_len} tokens (data.seq_len)"
    )

  def examples(documents: Ragged, tokenizer: Tokenizer) -> Examples:
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

  return _build(
    settings,
    site,
    examples=examples,
  )


def build_spans(settings: Settings, site: Site) -> base.Problem:
  """Builds span corruption; see ``base.Problem``."""
  data: DocumentOptions = settings.data
  options: SpanOptions = settings.task.options
  if data.packing != "stream":
    raise ValueError(
      f"data.packing is {data.packing!r}; span corruption takes 'stream' only"
    )
  check_least("data", data, seq_len=4)

  def examples(documents: Ragged, tokenizer: Tokenizer) -> Examples:
    return spans.span_corruption(
      documents,
      tokenizer,
      input_len=data.seq_len,
      noise_density=options.noise_density,
      mean_span=options.mean_span,
    )

  return _build(
    settings,
    site,
    examples=examples,
    num_sentinels=options.num_sentinels,
  )


CAUSAL = Kind(CausalOptions, TokenOptions, build_causal)
MASKED = Kind(DocumentOptions, MaskingOptions, build_masked)
SPANS = Kind(DocumentOptions, SpanOptions, build_spans)
