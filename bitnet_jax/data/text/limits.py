"""Limits for untrusted vocabulary files: size, growth of texts, and time."""

import base64
import binascii
import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

LARGEST_VOCABULARY = 2**26  # bytes of a file
LARGEST_MODEL = 2**25  # of a sentencepiece model
MOST_VALUES = 2**22  # of JSON in it
MOST_TOKENS = 2**20  # ids are smaller
MOST_RULES = 64  # of normalizer, splits and decoder, each
MOST_GROWTH = 64  # most characters that one may become by all rules
LONGEST_PATTERN = 4096  # characters of a regular expression
MOST_REPEATS = 100_000  # product of the numbers of repeats in one
LONGEST_PART = 64  # characters or bytes by which a rule replaces one
MOST_SECONDS = 0.5  # for a text of at most 1,024 characters

_CHILDREN = ("normalizers", "pretokenizers", "decoders")
_BRACED = re.compile(r"\\[a-zA-Z]\{[^}]*\}")  # names and code points
_REPEAT = re.compile(r"\{(\d*),?(\d*)\}")
_BYTE_CHARACTERS = 4  # that represent the bytes of a character
# Texts that make slow patterns backtrack.
_PROBES = ("a", " ", "0", "a ", "A1", "é", "中", "\n", ".", "aB-3_ ")
_LENGTHS = (16, 64, 256, 1024)
_BLOCK = 256  # units of a table of characters that one unit may lead to


def check_description(description: Mapping[str, Any]) -> None:
  """Raises a ValueError for a `tokenizer.json` beyond the limits above."""
  for part in ("normalizer", "pre_tokenizer", "decoder"):
    rules = [*_rules(description.get(part))]
    if len(rules) > MOST_RULES:
      raise ValueError(f"its {part} has more than {MOST_RULES} rules")
    growth = math.prod(map(_growth, rules))
    if growth > MOST_GROWTH:
      raise ValueError(
        f"its {part} turns one character into up to {growth:.3g}, more than"
        f" {MOST_GROWTH}"
      )
  model = description["model"]
  for key in ("continuing_subword_prefix", "end_of_word_suffix"):
    check_length(model.get(key) or "", what=key)
  vocabulary = model["vocab"]
  check_ids([len(vocabulary) - 1])
  ids = [token["id"] for token in description["added_tokens"]]
  ids += vocabulary.values() if isinstance(vocabulary, dict) else []
  check_ids(ids)


def check_ids(ids: Any) -> None:
  """Raises a ValueError for an id of `MOST_TOKENS` or more."""
  largest = max(ids, default=0)
  if largest >= MOST_TOKENS:
    raise ValueError(f"it has the id {largest}, which must be < {MOST_TOKENS}")


def check_length(text: str | bytes, *, what: str) -> None:
  """Raises a ValueError for a value longer than `LONGEST_PART`."""
  if len(text) > LONGEST_PART:
    raise ValueError(f"{what} is longer than {LONGEST_PART}")


def _rules(rule) -> Iterator[Mapping[str, Any]]:
  """Yields the rules of a part, with sequences flattened."""
  inner = [key for key in _CHILDREN if rule and key in rule]
  if rule and not inner:
    yield rule
  for key in inner:
    for child in rule[key]:
      yield from _rules(child)


def _growth(rule):
  """Returns the most characters that a rule makes of one."""
  pattern = rule.get("pattern") or {}
  pattern = {"String": pattern} if isinstance(pattern, str) else pattern
  regular = pattern.get("Regex")
  if regular is not None:
    _check_pattern(regular)
  for key in ("content", "prepend", "prefix", "suffix", "cleanup"):
    if isinstance(rule.get(key), str):
      check_length(rule[key], what=f"{key} of a rule")
  kind = rule.get("type")
  if kind == "Replace":
    content = len(rule["content"])
    if pattern.get("String"):
      return max(content / len(pattern["String"]), 1)
    return content + 1
  if kind == "Precompiled":
    try:
      table = base64.b64decode(rule["precompiled_charsmap"] or "")
    except binascii.Error as error:
      raise ValueError(f"precompiled_charsmap: {error}") from error
    return max(check_character_table(table), 1)
  return _BYTE_CHARACTERS if kind == "ByteLevel" else 1


def _check_pattern(pattern):
  """Raises a ValueError for a pattern that may need too much memory."""
  if len(pattern) > LONGEST_PATTERN:
    raise ValueError(f"a pattern has more than {LONGEST_PATTERN} characters")
  repeats = 1
  for numbers in _REPEAT.findall(_BRACED.sub("", pattern)):
    repeats *= max(int(number[:9] or 1) for number in numbers) or 1
  if repeats > MOST_REPEATS:
    raise ValueError(f"a pattern has more than {MOST_REPEATS} repeats")


def check_character_table(table: bytes) -> int:
  """Checks the character table of a sentencepiece model.

  The table is a trie, whose units refer to others by number, and a text, into
  which its leaves point. sentencepiece 0.2.3 checks these numbers, but other
  releases may not.

  Returns:
    The most bytes that it makes of a character.

  Raises:
    ValueError: a number points outside the table, or a string is longer than
      `LONGEST_PART`.
  """
  if not table:
    return 1
  size = int.from_bytes(table[:4], "little")
  units = np.frombuffer(table[4 : 4 + size], "<u1")
  if size == 0 or size % (4 * _BLOCK) or len(units) != size:
    raise ValueError("its character table is truncated")
  units = units.view("<u4").astype(np.int64)
  text = table[4 + size :]
  is_leaf = units >> 31 == 1
  values = units[is_leaf] & 0x7FFFFFFF
  # A unit refers to the one whose number is its own, changed by an offset and a
  # byte; the highest bit says that it is a leaf.
  offsets = (units >> 10) << ((units & 0x200) >> 6)
  leads = (np.arange(len(units)) ^ offsets) // _BLOCK
  outside = ~is_leaf & (leads >= len(units) // _BLOCK)
  if outside.any() or (values >= len(text)).any() or not text.endswith(b"\0"):
    raise ValueError("its character table points outside itself")
  longest = max(map(len, text.split(b"\0")))
  if longest > LONGEST_PART:
    raise ValueError(
      f"its table makes more than {LONGEST_PART} bytes of a character"
    )
  return longest


@contextlib.contextmanager
def naming_failures(where: str) -> Iterator[None]:
  """Turns errors of the tokenizers library into ValueErrors.

  The library raises bare exceptions. If Rust panics, for example when a pattern
  takes too many steps, it raises a BaseException.
  """
  try:
    yield
  except BaseException as error:
    is_panic = type(error).__name__ == "PanicException"
    if not isinstance(error, Exception) and not is_panic:
      raise
    raise ValueError(f"{where}: {error!s:.200}") from error


def check_time(encode: Callable[[str], Any]) -> None:
  """Encodes texts of growing length, to detect rules that take too long.

  Raises:
    ValueError: a text of at most 1,024 characters takes more than
      `MOST_SECONDS`.
  """
  for length in _LENGTHS:
    for probe in _PROBES:
      text = probe * (length // len(probe)) + "!"
      start = time.thread_time()
      with contextlib.suppress(Exception):  # of characters that it lacks
        encode(text)
      if time.thread_time() - start > MOST_SECONDS:
        raise ValueError(
          f"it takes more than {MOST_SECONDS} s for {length} characters"
        )
