"""Decides the vocabulary and the length of rows, from the text."""

import math
from collections.abc import Sequence

import numpy as np

from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.train.decisions.decisions import Decisions

_LEAST = 512  # tokens of a trained vocabulary
_ALPHABET = 1000  # characters that a trained vocabulary spells
_TRAINED = ("bpe", "wordpiece", "unigram")
_SAMPLE = 2_000  # texts whose length is measured
_CHARACTERS = 1_000_000  # of a stream, whose tokens are counted
_ROWS = 32  # that a stream should have
_PERCENTILE = 98
_MULTIPLE = 8  # of the length of rows


def decide(
  decisions: Decisions,
  texts: Sequence[str],
  *,
  trained: str,
  fewest: int,
  per_token: int,
) -> Tokenizer:
  """Decides the tokenizer and the size of its vocabulary.

  A run that starts from another, or is distilled, takes that vocabulary.

  Args:
    decisions: the config.
    texts: of the training split.
    trained: the kind that is trained, if there is enough text.
    fewest: bytes of text from which on it is trained; less text is bytes.
    per_token: bytes of text for each token of the vocabulary.

  Returns:
    The tokenizer, saved in the folder of the run if it was trained.
  """
  earlier = decisions.vocabulary
  if earlier is not None:
    reason = "the vocabulary of the run that this one starts from"
    decisions.decide("data.tokenizer", earlier, reason)
  amount = sum(len(text.encode()) for text in texts)
  shown = f"{amount:,} bytes of text"
  if amount < fewest:
    decisions.decide("data.tokenizer", "bytes", f"only {shown}")
  kind = decisions.decide("data.tokenizer", trained, shown)
  if kind in _TRAINED:
    most = decisions.budget.vocab_size
    size = 2 ** int(math.log2(min(max(amount / per_token, _LEAST), most)))
    characters = min(len(set().union(*texts)), _ALPHABET)
    while size < 2 * characters:
      size *= 2
    decisions.decide("data.vocab_size", size, shown)
  data = decisions.settings.data
  return data.load_tokenizer(lambda: texts, decisions.context)


def decide_length(
  decisions: Decisions,
  key: str,
  texts: Sequence[Sequence[str]],
  tokenizer: Tokenizer,
  *,
  special: int,
) -> None:
  """Decides how many tokens of an example a model reads.

  Args:
    decisions: the config.
    key: the length, a dotted key.
    texts: columns of the training split that make one row together.
    tokenizer: the vocabulary.
    special: special tokens in a row.
  """
  if not decisions.is_open(key):
    return
  most = decisions.config["model"]["max_length"]
  rows = np.linspace(0, len(texts[0]) - 1, _SAMPLE, dtype=int)
  rows = np.unique(rows).tolist()
  sizes = [
    tokenizer.encode_ragged([column[i] for i in rows]).lengths
    for column in texts
  ]
  lengths = np.sum(sizes, axis=0) + special
  usual = int(np.ceil(np.percentile(lengths, _PERCENTILE)))
  needed = -(-max(usual, _MULTIPLE) // _MULTIPLE) * _MULTIPLE
  reason = f"{_PERCENTILE} % of the texts have at most {usual} tokens"
  if needed > most:
    reason += f"; model.max_length is {most}"
  decisions.decide(key, min(needed, most), reason)


def decide_rows(
  decisions: Decisions, texts: Sequence[str], tokenizer: Tokenizer
) -> int:
  """Decides the length of rows that are cut from a stream of documents.

  Args:
    decisions: the config.
    texts: of the training split.
    tokenizer: the vocabulary.

  Returns:
    The number of rows, about.
  """
  each = -(-_CHARACTERS // len(texts))
  sample = [text[:each] for text in texts]
  measured = int(tokenizer.encode_ragged(sample).lengths.sum())
  tokens = round(measured * sum(map(len, texts)) / sum(map(len, sample)))
  most = decisions.config["model"]["max_length"]
  length = most
  while length > 2 * _MULTIPLE and tokens < length * _ROWS:
    length //= 2
  reason = f"about {tokens:,} tokens; model.max_length is {most}"
  length = decisions.decide("data.seq_len", length, reason)
  return max(tokens // length, 1)
