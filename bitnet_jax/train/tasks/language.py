"""Language models on documents: causal, masked, and span corruption."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from bitnet_jax import choices
from bitnet_jax.data import batches, masking, sequences, text
from bitnet_jax.data.batches import Examples
from bitnet_jax.data.tokenizers import Ragged, Tokenizer
from bitnet_jax.train import scores
from bitnet_jax.train.settings import Kind, Settings, check_least
from bitnet_jax.train.tasks import base
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
      lines.
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
    mask_rate: share of the tokens that are to be guessed.
    mask_share: share of these that are hidden by the token mask.
    random_share: share of these that are hidden by any token; the rest stay.
  """

  mask_rate: float
  mask_share: float
  random_share: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanOptions(TokenOptions):
  """The group ``task`` of "span_corruption".

  Attributes:
    noise_density: share of the tokens that are taken out.
    mean_span: mean length of what is taken out in one piece.
    num_sentinels: of the vocabulary, at least one for each span of a row.
  """

  noise_density: float
  mean_span: float
  num_sentinels: int


def _build(
  settings: Settings,
  folder: pathlib.Path | None,
  *,
  needs: tuple[str, ...],
  num_sentinels: int,
  examples: Callable[..., Examples],
  likelihood: bool,
) -> base.Problem:
  """Builds data, model and task.

  Args:
    settings: the config.
    folder: of the run.
    needs: special tokens.
    num_sentinels: of the vocabulary.
    examples: makes them of ``documents`` and a ``tokenizer``, for evaluation
      (``evaluates``) or not.
    likelihood: whether each token is predicted once, so that there is a
      likelihood of the whole text.
  """
  data: DocumentOptions = settings.data
  corpus = text.load_corpus(
    data.source,
    documents=data.documents,
    marker=data.marker,
    column=data.column,
    skip_empty=data.skip_empty,
    **data.cuts(),
  )
  tokenizer = data.load_tokenizer(
    lambda: corpus.splits["train"].texts,
    folder,
    needs=needs,
    num_sentinels=num_sentinels,
  )
  tokens = {
    split: tokenizer.encode_ragged(
      documents.texts, where=f"document of {split}"
    )
    for split, documents in corpus.splits.items()
  }
  train = examples(tokens["train"], tokenizer, evaluates=False)
  process = base.this_process()
  batch_at = base.element_of(
    batches.train_batches(
      train, batch_size=data.batch_size, seed=settings.seed, **process
    )
  )
  example = shapes_of(batch_at(0))
  model = base.make_model(
    settings, vocab_size=tokenizer.vocab_size, num_classes=None
  )
  args, kwargs = arguments(example)
  layers = base.find_layers(settings, model, *args, **kwargs)

  def eval_batches(split: str):
    return batches.eval_batches(
      examples(tokens[split], tokenizer, evaluates=True),
      batch_size=data.rows_of_evaluation,
      **process,
    )

  def finish(split: str, sums: Mapping[str, Any]) -> dict[str, float]:
    metrics = base.averages(sums)
    nll = float(sums["loss"])
    metrics["perplexity"] = scores.perplexity(nll, float(sums["weight"]))
    if likelihood:
      documents = corpus.splits[split]
      # The end of a line counts as a word, as is the custom ("<eos>").
      words = documents.num_words + documents.num_lines
      metrics["word_perplexity"] = scores.perplexity(nll, words)
      metrics["bits_per_byte"] = scores.bits_per_byte(nll, documents.num_bytes)
    return {name: float(value) for name, value in metrics.items()}

  names = ("accuracy", "loss", "perplexity")
  if likelihood:
    names += ("bits_per_byte", "word_perplexity")
  return base.Problem(
    task=TokenPrediction(model, example, settings.task.options),
    layers=layers,
    splits=tuple(corpus.splits),
    num_examples=len(train),
    fingerprint=base.with_vocabulary(corpus.fingerprint, tokenizer),
    metric_names=names,
    train_batch=batch_at,
    eval_batches=eval_batches,
    finish=finish,
    tokenizer=tokenizer,
  )


def build_causal(
  settings: Settings, folder: pathlib.Path | None = None
) -> base.Problem:
  """Builds a causal language model; see ``base.Problem``."""
  data: CausalOptions = settings.data

  def examples(documents: Ragged, tokenizer: Tokenizer, *, evaluates: bool):
    if data.packing == "documents":
      return sequences.packed(documents, tokenizer, seq_len=data.seq_len)
    return sequences.chunks(
      documents,
      tokenizer,
      seq_len=data.seq_len,
      stride=data.eval_stride if evaluates else None,
    )

  return _build(
    settings,
    folder,
    needs=("eos",),
    num_sentinels=0,
    examples=examples,
    likelihood=True,
  )


def build_masked(
  settings: Settings, folder: pathlib.Path | None = None
) -> base.Problem:
  """Builds a masked language model; see ``base.Problem``."""
  data: DocumentOptions = settings.data
  options: MaskingOptions = settings.task.options

  def examples(documents: Ragged, tokenizer: Tokenizer, *, evaluates: bool):
    del evaluates
    rows = sequences.encoder_rows(
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
    )

  return _build(
    settings,
    folder,
    needs=("cls", "sep", "mask", "pad"),
    num_sentinels=0,
    examples=examples,
    likelihood=False,
  )


def build_spans(
  settings: Settings, folder: pathlib.Path | None = None
) -> base.Problem:
  """Builds span corruption; see ``base.Problem``."""
  data: DocumentOptions = settings.data
  options: SpanOptions = settings.task.options
  if data.packing != "stream":
    raise ValueError(
      f"data.packing is {data.packing!r}; span corruption takes 'stream' only"
    )

  def examples(documents: Ragged, tokenizer: Tokenizer, *, evaluates: bool):
    del evaluates
    return masking.span_corruption(
      documents,
      tokenizer,
      input_len=data.seq_len,
      noise_density=options.noise_density,
      mean_span=options.mean_span,
    )

  return _build(
    settings,
    folder,
    needs=("eos", "pad"),
    num_sentinels=options.num_sentinels,
    examples=examples,
    likelihood=False,
  )


CAUSAL = Kind(CausalOptions, TokenOptions, build_causal)
MASKED = Kind(DocumentOptions, MaskingOptions, build_masked)
SPANS = Kind(DocumentOptions, SpanOptions, build_spans)
