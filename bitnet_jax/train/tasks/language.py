"""Data of language models: documents as rows of tokens."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

from bitnet_jax import choices
from bitnet_jax.data.batches.order import Examples
from bitnet_jax.data.splits import Dataset
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer
from bitnet_jax.data.views import documents
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.facts import SplitFacts
from bitnet_jax.train.tasks.text_options import TextOptions
from bitnet_jax.train.tasks.token_prediction import token_data

PACKING = ("stream", "documents")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageOptions(TextOptions):
  """The keys of the group ``data`` of all language models.

  Attributes:
    source: "embedded:pydoc", "file:PATH", "tfds:NAME" or "hf:NAME"; see
      ``documents.load``, like the next four and ``hold_out``.
    documents: what a document of a ".txt" is; ``None`` for the file.
    marker: ends a document if ``documents`` is "marked".
    column: column of the texts, in tables.
    skip_empty: whether empty documents are left out; otherwise they are errors.
    seq_len: tokens per row.
    packing: "stream", whose rows are cut from all documents joined, or
      "documents", whose rows hold as many documents as fit, without attention
      between them.
    hold_out: what is cut off for missing splits.
  """

  documents: str | None
  marker: str
  column: str
  skip_empty: bool
  seq_len: int
  packing: str
  hold_out: str

  def __post_init__(self):
    super().__post_init__()
    groups.check_least("data", self, seq_len=1)
    choices.check(self.packing, PACKING, key="data.packing")
    choices.check(self.hold_out, documents.HOLD_OUT, key="data.hold_out")


def load_documents(
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
  data: LanguageOptions = settings.data
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

  facts: dict[str, Any] = {"fingerprint": corpus.fingerprint}
  if eval_stride is not None:
    strided: dict[str, Any] = examples
    facts["evaluated"] = {
      split: dataclasses.replace(rows, stride=eval_stride)
      for split, rows in strided.items()
    }
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
    length=data.seq_len,
    **facts,
  )


def _load_corpus(
  data: LanguageOptions, context: RunContext
) -> Dataset[documents.Documents]:
  """Loads the documents, as the run in the folder did.

  In older runs the documents of a ".txt" were its lines, not the file.
  """

  def load(unit: str | None) -> Dataset[documents.Documents]:
    return documents.load(
      data.source,
      data.cuts(),
      documents=unit,
      marker=data.marker,
      column=data.column,
      skip_empty=data.skip_empty,
      hold_out=data.hold_out,
    )

  corpus = load(data.documents)
  if not context.recorded or context.recorded == corpus.fingerprint:
    return corpus
  if data.documents is None and documents.is_plain_text(data.source):
    with contextlib.suppress(ValueError):  # Of blank lines, for instance.
      by_line = load("lines")
      if by_line.fingerprint == context.recorded:
        return by_line
  return corpus
