"""Decides from texts: labeled ones, documents, and pairs to read and write."""

from typing import Any

import numpy as np

from bitnet_jax.data import splits
from bitnet_jax.data.sources.tables import Source
from bitnet_jax.data.splits import Dataset
from bitnet_jax.data.views import documents, labeled_texts, pairs
from bitnet_jax.train.decisions import columns, examples, sources, vocabularies
from bitnet_jax.train.decisions.decisions import Decisions

_CLASSES = 20  # integers are classes if there are at most so many of them
_DOCUMENTS = 20  # from which on some are for testing
_PER_CLASS = 5  # or if there are so many examples of each


def ask_labeled(decisions: Decisions) -> None:
  """Decides what the task "text_classification" leaves open."""
  source = sources.read(decisions, "labeled texts")
  columns.decide_labeled(decisions, source)
  _decide_regression(decisions, source)
  settings = decisions.settings
  data, regression = settings.data, settings.task.options.regression
  found = labeled_texts.load(
    data.source,
    sources.uncut(decisions),
    columns=data.columns,
    label=data.label,
    regression=regression,
    class_names=data.class_names,
  )
  labels = found.splits["train"].labels
  if regression:
    _check_spread(decisions, labels)
  else:
    examples.check_classes(decisions, labels, found.class_names)
  score = "pearson" if regression else "accuracy"
  reason = "labels are numbers" if regression else "labels are classes"
  _decide_best(decisions, f"valid/{score}", "max", reason)
  examples.decide_cuts(
    decisions, found.splits, num_classes=len(found.class_names)
  )
  train = _cut(decisions, found)
  examples.decide_batch_size(decisions, len(train))
  tokenizer = vocabularies.decide(
    decisions,
    [text for column in train.texts for text in column],
    trained="wordpiece",
    fewest=10_000,
    per_token=64,
  )
  special = 1 + len(train.texts)
  vocabularies.decide_length(
    decisions, "data.seq_len", train.texts, tokenizer, special=special
  )


def ask_documents(decisions: Decisions) -> None:
  """Decides what a language model leaves open."""
  source = sources.read(decisions, "documents")
  columns.decide_text(decisions, source)
  data = decisions.settings.data
  found = documents.load(
    data.source,
    sources.uncut(decisions),
    documents=data.documents,
    marker=data.marker,
    column=data.column,
    skip_empty=data.skip_empty,
  )
  _decide_best(decisions, "valid/loss", "min", "a language model")
  train = found.splits["train"]
  if len(train) < _DOCUMENTS:
    reason = f"{len(train)} documents are too few to hold some out"
    decisions.decide("data.hold_out", "ends", reason)
  ends = decisions.decide("data.hold_out", "documents") == "ends"
  if ends or len(train) == 1:
    size, cut = sum(map(len, train.texts)), documents.cut_ends
  else:
    size, cut = len(train), documents.cut
  examples.decide_cuts(decisions, found.splits, size=size, many=_DOCUMENTS)
  train = _cut(decisions, found, cut=cut)
  tokenizer = vocabularies.decide(
    decisions, train.texts, trained="bpe", fewest=50_000, per_token=512
  )
  rows = vocabularies.decide_rows(decisions, train.texts, tokenizer)
  # All tokens of a row are predicted, so that half as many rows say as much.
  most = max(decisions.budget.batch_size // 2, 1)
  examples.decide_batch_size(decisions, rows, most=most)


def ask_pairs(decisions: Decisions) -> None:
  """Decides what the task "translation" leaves open."""
  source = sources.check(decisions, "pairs of texts")
  if decisions.is_open("data.languages"):
    if "{lang}" in source:
      raise ValueError(
        f"data.source is {source!r}; give what {{lang}} stands for, first the"
        " language that is read: --config.data.languages=\"('READ','WRITTEN')\""
      )
    columns.decide_pair(decisions, sources.read(decisions, "pairs of texts"))
  data = decisions.settings.data
  found = pairs.load(
    data.source, sources.uncut(decisions), languages=data.languages
  )
  _decide_best(decisions, "valid/loss", "min", "a language model")
  examples.decide_cuts(decisions, found.splits)
  train = _cut(decisions, found)
  examples.decide_batch_size(decisions, len(train))
  tokenizer = vocabularies.decide(
    decisions,
    [*train.sources, *train.targets],
    trained="bpe",
    fewest=50_000,
    per_token=256,
  )
  for key, texts in (("input", train.sources), ("target", train.targets)):
    vocabularies.decide_length(
      decisions, f"data.{key}_len", [texts], tokenizer, special=1
    )


def _cut(decisions, found: Dataset[Any], **options: Any) -> Any:
  """Returns the training split, cut as the run will cut it."""
  cut = splits.make_dataset(
    found.splits,
    decisions.settings.data.cuts(),
    source=decisions.given("data.source"),
    fingerprint="not needed",
    **options,
  )
  return cut.splits["train"]


def _decide_best(decisions, metric, mode, reason) -> None:
  decisions.decide("checkpoint.metric", metric, reason)
  decisions.decide("checkpoint.mode", mode)


def _decide_regression(decisions: Decisions, source: Source) -> None:
  """Decides whether labels are numbers or classes."""
  if not decisions.is_open("task.regression"):
    return
  label = decisions.given("data.label")
  values = source.splits["train"].read(label).columns[label]
  differ = {*values}
  count = f"{len(differ)} different labels"
  named = source.class_names.get(label)
  if named or not all(map(columns.is_number, differ)):
    regression, reason = False, f"{count}, not all numbers"
  elif not all(float(value).is_integer() for value in differ):
    regression, reason = True, f"{count}, numbers with fractions"
  else:
    many = max(_CLASSES, len(values) / _PER_CLASS)
    regression, reason = len(differ) > many, f"{count}, whole numbers"
  decisions.decide("task.regression", regression, reason)


def _check_spread(decisions: Decisions, labels: np.ndarray) -> None:
  if np.ptp(labels) == 0:
    raise ValueError(
      f"data.source is {decisions.given('data.source')!r}, whose labels"
      f" ({decisions.given('data.label')}) are all {labels[0]:g}; there is"
      " nothing to learn"
    )
