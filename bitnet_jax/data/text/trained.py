"""Vocabularies that need no file: the bytes, and those that are trained."""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from bitnet_jax.data import splits
from bitnet_jax.data.text import (
  sentencepieces,
  subword_training,
  subwords,
  vocabulary,
)
from bitnet_jax.data.text.vocabulary import ROLES, Vocabulary

_NAMES = tuple(f"<{role}>" for role in ROLES)


class _Bytes:
  """Codec whose ids are the bytes of UTF-8."""

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """See `Codec`."""
    return [list(text.encode()) for text in texts]

  def decode(self, ids: list[int]) -> str:
    """See `Codec`; what is not UTF-8 or no byte becomes U+FFFD."""
    values = (i if i < 256 else 0xFF for i in ids)
    return bytes(values).decode(errors="replace")

  def describe(self) -> dict[str, Any]:
    """See `Codec`; a byte-level BPE that merges nothing."""
    return subwords.describe_bytes()


def bytes_vocabulary(num_sentinels: int) -> Vocabulary:
  """Returns the bytes, then the special tokens, then the sentinels."""
  first = 256 + len(ROLES)
  size = first + num_sentinels
  return Vocabulary(
    codec=_Bytes(),
    content=b"bytes",
    size=size,
    ids=dict(zip(ROLES, range(256, first), strict=True)),
    sentinels=tuple(range(first, size)),
  )


def find(
  options: Mapping[str, Any],
  texts: Callable[[], Iterable[str]],
  cache: pathlib.Path | None,
) -> Vocabulary:
  """Returns a vocabulary of the cache, or trains it and puts it there.

  Args:
    options: "spec", "vocab_size", "num_sentinels" and "lowercase", as
      `tokenizers.load_tokenizer` takes them.
    texts: gives what to train on.
    cache: where it is kept; `None` for nowhere.

  Raises:
    ValueError: the size is too small, or the cache holds what was trained from
      something else.
  """
  library = sentencepieces if options["spec"] == "unigram" else subwords
  record = {**options, "texts": splits.digest(texts())}
  data = (
    None
    if cache is None
    else vocabulary.recall(cache, library.FILE_NAME, record)
  )
  if data is None:
    names = (
      *_NAMES,
      *map("<extra_id_{}>".format, range(options["num_sentinels"])),
    )
    arguments: dict[str, Any] = {**options, "names": names}
    del arguments["num_sentinels"]
    trainer = subword_training if library is subwords else sentencepieces
    data = trainer.train(_lines(texts()), **arguments)
    if cache is not None:
      vocabulary.keep(cache, library.FILE_NAME, data, record)
  found = library.parse(data, where=f"the trained {options['spec']}")
  size, asked = found.size, options["vocab_size"]
  if size > asked:
    raise ValueError(
      f"vocab_size={asked} is too small for {options['spec']}: characters and"
      f" special tokens alone are {size}"
    )
  if size < asked:
    logging.warning(
      "The texts give %d tokens for %s, not the vocab_size=%d asked for",
      size,
      options["spec"],
      asked,
    )
  return found


def _lines(texts):
  """Yields texts line by line: what is trained on counts words only."""
  for text in texts:
    yield from (line + "\n" for line in text.split("\n") if line)
