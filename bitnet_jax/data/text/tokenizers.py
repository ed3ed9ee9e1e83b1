"""Tokenizers: bytes, vocabulary files, and vocabularies trained on the data."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from absl import logging

from bitnet_jax import choices
from bitnet_jax.data.text import (
  byte_tokens,
  limits,
  sentencepieces,
  subwords,
  training,
)
from bitnet_jax.data.text.vocabulary import ROLES, Codec, Vocabulary
from bitnet_jax.files import PathLike, local_path

MOST_SENTINELS = 2**16
_USUAL_SENTINELS = 512  # largest number of sentinels
_PART = 4096  # texts that are encoded at a time
_MANY_UNKNOWN = 0.01  # fraction of unknown tokens that logs a warning
_TRAINED = ("bpe", "wordpiece", "unigram")
# How a file is named, and what reads it.
_FILES = {
  "sentencepiece": ("sentencepiece:PATH.model", sentencepieces.read),
  "tokenizers": ("tokenizers:PATH/tokenizer.json", subwords.read),
  "gpt2": ("gpt2:VOCAB.json,MERGES.txt", subwords.read_gpt2),
  "bert": ("bert:VOCAB.txt", subwords.read_bert),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ragged:
  """Sequences of ids of varying length, concatenated.

  Attributes:
    values: int32 [total], the ids of all sequences.
    offsets: int64 [n + 1], the start of each sequence; the last is the total.
  """

  values: np.ndarray
  offsets: np.ndarray

  @classmethod
  def of(cls, sequences: Iterable[Sequence[int] | np.ndarray]) -> "Ragged":
    """Concatenates sequences."""
    arrays = [np.asarray(ids, np.int32) for ids in sequences]
    return cls(
      values=np.concatenate([np.zeros(0, np.int32), *arrays]),
      offsets=np.cumsum([0, *map(len, arrays)], dtype=np.int64),
    )

  @classmethod
  def join(cls, parts: Sequence["Ragged"]) -> "Ragged":
    """Concatenates the sequences of all parts."""
    lengths = np.concatenate(
      [np.zeros(1, np.int64), *(part.lengths for part in parts)]
    )
    values = [np.zeros(0, np.int32), *(part.values for part in parts)]
    return cls(values=np.concatenate(values), offsets=np.cumsum(lengths))

  @property
  def lengths(self) -> np.ndarray:
    """The length of each sequence, int64 [n]."""
    return np.diff(self.offsets)

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def __getitem__(self, index: int) -> np.ndarray:
    index = range(len(self))[index]
    return self.values[self.offsets[index] : self.offsets[index + 1]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tokenizer:
  """A vocabulary that encodes text to ids and decodes ids to text.

  Encoding never returns ids of special tokens, whatever a text contains, except
  `unk_id` for characters that the vocabulary cannot spell. Callers add special
  tokens where they belong.

  Attributes:
    vocab_size: ids are in [0, vocab_size).
    fingerprint: hash of the vocabulary.
    codec: encodes and decodes text.
    pad_id: padding; `None`, like each of the following, if there is none.
    bos_id: beginning of text.
    eos_id: end of text.
    unk_id: unknown token.
    mask_id: mask token.
    cls_id: classification token, before a row.
    sep_id: separator, after each text of an example.
    sentinels: one for each span of span corruption, in the order of use.
    unused: ids in [0, vocab_size) without a token.
  """

  vocab_size: int
  fingerprint: str
  codec: Codec
  pad_id: int | None = None
  bos_id: int | None = None
  eos_id: int | None = None
  unk_id: int | None = None
  mask_id: int | None = None
  cls_id: int | None = None
  sep_id: int | None = None
  sentinels: tuple[int, ...] = ()
  unused: tuple[int, ...] = ()

  def unused_ids(self, vocab_size: int) -> np.ndarray:
    """Returns the ids of a model without a token, int32, sorted.

    Args:
      vocab_size: number of ids of the model, which may exceed the vocabulary.
    """
    return np.array(
      [*self.unused, *range(self.vocab_size, vocab_size)], np.int32
    )

  @property
  def special_ids(self) -> np.ndarray:
    """The ids without text, including `unk_id`, int32, sorted."""
    ids = {getattr(self, f"{role}_id") for role in ROLES} - {None}
    return np.array(sorted(ids | {*self.sentinels}), np.int32)

  def need(self, role: str, *, purpose: str) -> int:
    """Returns the id of a required special token.

    Args:
      role: one of `ROLES`.
      purpose: what needs it, for the message.

    Raises:
      ValueError: the vocabulary lacks it.
    """
    token = getattr(self, f"{role}_id")
    if token is None:
      raise ValueError(
        f"{purpose} needs a token {role}, which the vocabulary lacks; load it"
        f' with needs=("{role}",) to give it one'
      )
    return token

  def encode(self, text: str) -> np.ndarray:
    """Returns the ids of a text, int32 [length], without special tokens.

    Raises:
      ValueError: the text cannot be written in UTF-8; names its index.
    """
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the ids of each text; faster than one call a text."""
    return [np.array(ids, np.int32) for ids in self._encode(texts)]

  def encode_ragged(
    self, texts: Sequence[str], *, where: str = "text"
  ) -> Ragged:
    """Returns the concatenated ids of all texts.

    The fraction of unknown tokens is logged, as a warning above 1 %.

    Args:
      texts: each must have at least one token.
      where: name of a text in messages.

    Raises:
      ValueError: a text has no token, or cannot be written in UTF-8; names its
        index.
    """
    # In parts, of which only the ids are kept.
    rest, parts, first = iter(texts), [], 0
    while part := list(itertools.islice(rest, _PART)):
      parts.append(Ragged.of(self._encode(part, first)))
      first += len(part)
    encoded = Ragged.join(parts)
    empty = np.flatnonzero(encoded.lengths == 0)
    if empty.size:
      raise ValueError(
        f"{where} {empty[0]} is empty: {texts[empty[0]]!r} has no token"
      )
    self._log_unknown(encoded.values, where)
    return encoded

  def _encode(self, texts, first=0):
    """Encodes texts, of numbers from `first`; names one that is not UTF-8."""
    try:
      return self.codec.encode(texts)
    except (TypeError, ValueError):
      for index, text in enumerate(texts, first):
        try:
          text.encode()
        except UnicodeEncodeError as error:
          raise ValueError(f"text {index} is not text: {error}") from error
      raise

  def _log_unknown(self, ids, where):
    if self.unk_id is None or not len(ids):
      return
    count = np.count_nonzero(ids == self.unk_id)
    fraction = count / len(ids)
    logging.log(
      logging.WARNING if fraction > _MANY_UNKNOWN else logging.INFO,
      "%s: %.2f %% of the tokens are unknown, %d of %d; an unknown token hides"
      " what the vocabulary cannot spell, in WordPiece a whole word",
      where,
      100 * fraction,
      count,
      len(ids),
    )

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Returns the text of ids, without special tokens except the unknown.

    An id without a token becomes U+FFFD.

    Raises:
      ValueError: an id is outside the vocabulary; names it and its index.
    """
    ids = np.asarray(ids, np.int64)
    bad = np.flatnonzero((ids < 0) | (ids >= self.vocab_size))
    if bad.size:
      raise ValueError(
        f"id {ids[bad[0]]} at index {bad[0]} is outside the vocabulary,"
        f" 0..{self.vocab_size - 1}"
      )
    silent = self.special_ids[self.special_ids != self.unk_id]
    ids = ids[~np.isin(ids, silent)]
    first, *others = np.split(ids, np.flatnonzero(np.isin(ids, self.unused)))
    known = [first, *(part[1:] for part in others)]
    return "\N{REPLACEMENT CHARACTER}".join(
      self.codec.decode(part.tolist()) for part in known
    )


def load_tokenizer(
  spec: str,
  *,
  texts: Callable[[], Iterable[str]],
  vocab_size: int | None = None,
  num_sentinels: int = 0,
  lowercase: bool | None = None,
  needs: Collection[str] = (),
  known: Collection[str] = (),
  cache: PathLike | None = None,
) -> Tokenizer:
  """Loads or trains the tokenizer of a spec.

  Args:
    spec: `bytes` of UTF-8; `bpe`, `wordpiece` (with the text rules of BERT) or
      `unigram`, which are trained; or a file, `sentencepiece:PATH.model`,
      `tokenizers:PATH/tokenizer.json`, `gpt2:VOCAB.json,MERGES.txt` or
      `bert:VOCAB.txt`, whose special tokens are found by name.
    texts: returns the training texts; only called to train.
    vocab_size: size to train to, including special tokens and sentinels; small
      texts can give less, which is logged. Otherwise `None`, or more than there
      are, such as a multiple of the devices over which the vocabulary is split;
      the ids beyond are never generated.
    num_sentinels: least number of sentinels.
    lowercase: whether to train on and read text in lower case, and for `bert`
      and `wordpiece` without accents. `None` means yes for these two and no for
      the other trained ones; other files accept only `None`.
    needs: required `ROLES`. Those that a file lacks, and sentinels, get new ids
      at the end, in this order.
    known: fingerprints of vocabularies of other runs. If this vocabulary would
      be one of those with other new ids, it gets theirs: with fewer of `needs`,
      as older runs have, or with more sentinels.
    cache: run folder, where a trained vocabulary is saved and found again.

  Raises:
    FileNotFoundError: the file does not exist.
    ImportError: the package that a vocabulary needs is not installed.
    ValueError: an argument or a file is invalid, or the cache holds a
      vocabulary that was trained differently.
  """
  kind, _, path = spec.partition(":")
  _check(spec, kind, path, vocab_size, num_sentinels, lowercase, needs)
  if kind in _TRAINED:
    options = {
      "spec": kind,
      "vocab_size": vocab_size,
      "num_sentinels": num_sentinels,
      "lowercase": kind == "wordpiece" if lowercase is None else lowercase,
    }
    cache = None if cache is None else local_path(cache)
    found = training.load_or_train(options, texts, cache)
  elif kind == "bytes":
    found = byte_tokens.vocabulary(num_sentinels)
  else:
    rules = {"lowercase": lowercase is not False} if kind == "bert" else {}
    found = _FILES[kind][1](path, **rules)
  tokenizer = _complete_as_known(found, num_sentinels, needs, known)
  if kind in _TRAINED or vocab_size is None:
    return tokenizer
  return _with_unused_ids(tokenizer, spec, vocab_size)


def _complete_as_known(found, num_sentinels, needs, known) -> Tokenizer:
  """Completes a vocabulary with new ids, those of a known one if there is."""
  tokenizer = _complete(found, num_sentinels, needs)
  if tokenizer.fingerprint in known:
    return tokenizer
  others = _completions(found, num_sentinels, needs) if known else ()
  same = (other for other in others if other.fingerprint in known)
  return next(same, tokenizer)


def _with_unused_ids(
  tokenizer: Tokenizer, spec: str, vocab_size: int
) -> Tokenizer:
  """Adds unused ids, so that there are ``vocab_size``."""
  if vocab_size < tokenizer.vocab_size:
    raise ValueError(
      f"vocab_size is {vocab_size}, but {spec} has {tokenizer.vocab_size}"
      " tokens, including added ones; set vocab_size to None, or to more for"
      " unused ids"
    )
  unused = tuple(tokenizer.unused_ids(vocab_size).tolist())
  return dataclasses.replace(tokenizer, vocab_size=vocab_size, unused=unused)


def _check(spec, kind, path, vocab_size, num_sentinels, lowercase, needs):
  """Checks the arguments of `load_tokenizer`."""
  known = path if kind in _FILES else kind in ("bytes", *_TRAINED) and not path
  if not known or (kind == "gpt2" and "," not in path):
    listed = ", ".join(
      ["bytes", *_TRAINED, *(form for form, _ in _FILES.values())]
    )
    raise ValueError(f"unknown tokenizer {spec!r}; choose among {listed}")
  if (vocab_size or 0) > limits.MOST_TOKENS:
    raise ValueError(
      f"vocab_size must not be above {limits.MOST_TOKENS}, it is {vocab_size}"
    )
  if not 0 <= num_sentinels <= MOST_SENTINELS:
    wrong = "negative" if num_sentinels < 0 else f"above {MOST_SENTINELS}"
    raise ValueError(
      f"num_sentinels must not be {wrong}, it is {num_sentinels}"
    )
  for role in needs:
    choices.check(role, ROLES, key="needs")
  if lowercase is not None and kind not in (*_TRAINED, "bert"):
    raise ValueError(f"lowercase={lowercase} does not apply to {spec}")
  if kind in _TRAINED and (vocab_size is None or vocab_size < 1):
    raise ValueError(f"{spec} needs a positive vocab_size, it is {vocab_size}")


def _completions(found, num_sentinels, needs):
  """Yields tokenizers with more sentinels or with fewer roles."""
  digest = hashlib.sha256(found.content)
  for count in range(num_sentinels + 1, _USUAL_SENTINELS + 1):
    yield _complete(found, count, needs, digest)
  missing = [role for role in ROLES if role in needs and role not in found.ids]
  for count in range(len(missing)):
    for roles in itertools.combinations(missing, count):
      yield _complete(found, num_sentinels, roles, digest)


def _complete(found: Vocabulary, num_sentinels, needs, digest=None):
  """Returns a tokenizer with the added special tokens and sentinels."""
  ids = dict(found.ids)
  new = itertools.count(found.size)
  for role in ROLES:
    if role in needs and role not in ids:
      ids[role] = next(new)
  missing = max(num_sentinels - len(found.sentinels), 0)
  sentinels = (*found.sentinels, *itertools.islice(new, missing))
  size = next(new)
  digest = digest.copy() if digest else hashlib.sha256(found.content)
  digest.update(json.dumps([size, ids, sentinels], sort_keys=True).encode())
  return Tokenizer(
    vocab_size=size,
    fingerprint=f"sha256:{digest.hexdigest()}",
    codec=found.codec,
    sentinels=sentinels,
    unused=found.unused,
    **{f"{role}_id": token for role, token in ids.items()},
  )
