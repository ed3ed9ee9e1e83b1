"""Decides which columns of a table hold texts, labels or pairs of texts."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax.data.sources.tables import Source, Table
from bitnet_jax.train.decisions.decisions import Decisions

_SAMPLE = 300  # rows that are looked at
# Names of columns in lower case. Of the labels, an earlier one wins.
_LABELS = (
  "label labels class classes target category categories sentiment topic"
  " intent emotion genre score rating stars similarity grade y"
).split()
_TEXTS = "text sentence document content review comment message body".split()
_READ_AND_WRITTEN = (
  ("source", "target"),
  ("src", "tgt"),
  ("input", "output"),
  ("text", "summary"),
  ("document", "summary"),
  ("article", "summary"),
  ("article", "highlights"),
  ("dialogue", "summary"),
  ("question", "answer"),
  ("prompt", "response"),
)
_COMPARED = (
  ("sentence1", "sentence2"),
  ("text1", "text2"),
  ("question1", "question2"),
  ("premise", "hypothesis"),
  ("question", "sentence"),
  ("query", "document"),
)
_FEW = 3  # words of a text, on average


def names_of(source: Source) -> tuple[str, ...]:
  """Returns the names of the columns of a source."""
  if source.names:
    return tuple(source.names)
  table = source.splits["train"]
  if isinstance(table, Table):
    return tuple(table.columns)
  found: dict[str, None] = {}
  for row in range(min(len(table), _SAMPLE)):
    found |= dict.fromkeys(table.records[row])
  return tuple(found)


def decide_labeled(decisions: Decisions, source: Source) -> None:
  """Decides the columns of texts and labels; two texts for a model of pairs.

  Raises:
    ValueError: if several could be meant; lists them, and the flag to set.
  """
  if source.label:  # Its texts are not in columns to choose from.
    reason = "the source has these only"
    decisions.decide("data.columns", tuple(source.texts), reason)
    decisions.decide("data.label", source.label, reason)
    return
  names, count = names_of(source), _texts_of(decisions)
  kinds = _kinds(source, names)
  given = decisions.given("data.columns") or tuple(source.texts)
  label = decisions.given("data.label")
  if label is None:
    label = _choose_label(
      decisions, [n for n in names if n not in given], kinds
    )
    decisions.decide("data.label", label, _among(names))
  if given:
    decisions.decide("data.columns", given, "the source says so")
    return
  others = [name for name in names if name != label]
  columns = _choose_texts(others, kinds, count, _COMPARED)
  if columns is None:
    texts = [name for name in others if kinds[name] == "text"]
    hint = "('NAME',)" if count == 1 else "('NAME','NAME')"
    other = (
      "; for pairs of texts take --config=pairs"
      if count == 1 and len(texts) == 2
      else "; for single texts take --config=texts"
      if count == 2 and len(texts) == 1
      else ""
    )
    raise _ambiguous(
      decisions,
      names,
      "the text" if count == 1 else "the two texts",
      f'--config.data.columns="{hint}"{other}',
    )
  decisions.decide("data.columns", columns, _among(names))


def decide_features(decisions: Decisions, source: Source) -> None:
  """Decides the columns of the class and of the numbers in a table of these.

  Raises:
    ValueError: if several could be the class; lists them, and the flag to set.
  """
  names = names_of(source)
  kinds = _kinds(source, names)
  given = decisions.given("data.columns") or ()
  others = [name for name in names if name not in given]
  label = decisions.given("data.label")
  if label is None:
    # All but the label are numbers, so that words can only be the label.
    words = [n for n in others if kinds[n] != "number" and not _is_key(n)]
    label = words[0] if len(words) == 1 else None
    label = label or _choose_label(decisions, others, kinds)
    decisions.decide("data.label", label, _among(names))
  left = [name for name in names if name != label]
  numbers = [n for n in left if kinds[n] == "number" and not _is_key(n)]
  if numbers and numbers != left:
    decisions.decide("data.columns", tuple(numbers), "columns of numbers")


def decide_text(decisions: Decisions, source: Source) -> None:
  """Decides the column of documents without labels."""
  if source.texts or not decisions.is_open("data.column"):
    decisions.decide(
      "data.column", next(iter(source.texts), None), "the source"
    )
    return
  names = names_of(source)
  found = _choose_texts(names, _kinds(source, names), 1, ())
  if found is None:
    raise _ambiguous(decisions, names, "the text", "--config.data.column=NAME")
  decisions.decide("data.column", found[0], _among(names))


def decide_pair(decisions: Decisions, source: Source) -> None:
  """Decides which columns a model reads and writes, in this order."""
  if source.pair:
    decisions.decide("data.languages", tuple(source.pair), "the source says so")
  if not decisions.is_open("data.languages"):
    return
  names = names_of(source)
  found = _choose_texts(names, _kinds(source, names), 2, _READ_AND_WRITTEN)
  if found is None:
    raise _ambiguous(
      decisions,
      names,
      "the text that is read, and the text that is written",
      "--config.data.languages=\"('READ','WRITTEN')\"",
    )
  reason = f"read, written; {_among(names)}"
  decisions.decide("data.languages", found, reason)


def _texts_of(decisions) -> int:
  """Returns how many texts an example of the model has."""
  return 2 if decisions.config["model"]["num_types"] == 2 else 1


def _choose_label(decisions, names, kinds) -> str:
  by_name = sorted(
    (name for name in names if name.lower() in _LABELS),
    key=lambda name: _LABELS.index(name.lower()),
  )
  if by_name and kinds[by_name[0]] != "text":
    return by_name[0]
  rest = [n for n in names if kinds[n] != "text" and not _is_key(n)]
  if len(rest) > 1:  # Numbers may be anything.
    rest = [name for name in rest if kinds[name] != "number"]
  if len(rest) != 1:
    flag = "--config.data.label=NAME"
    if not rest:
      flag += "; texts without labels are for --config=lm or --config=translate"
    raise _ambiguous(decisions, names, "the label", flag)
  return rest[0]


def _choose_texts(
  names: Sequence[str],
  kinds: Mapping[str, str],
  count: int,
  known: Collection[tuple[str, ...]],
) -> tuple[str, ...] | None:
  """Returns the columns of texts, ``None`` if several could be meant."""
  lower = {name.lower(): name for name in names}
  for pair in known:
    if count == 2 and all(name in lower for name in pair):
      return tuple(lower[name] for name in pair)
  texts = [name for name in names if kinds[name] == "text"]
  by_name = [name for name in texts if name.lower() in _TEXTS]
  others = [n for n in names if kinds[n] != "number" and not _is_key(n)]
  usual = [name for name in others if name.lower() in _TEXTS]
  for found in (texts, by_name, usual, others):
    if len(found) == count:
      return tuple(found)
  return None


def _is_key(name: str) -> bool:
  """Whether a column numbers or names the rows."""
  return name.lower() in ("", "id", "idx", "index", "guid", "unnamed: 0")


def _kinds(source: Source, names: Sequence[str]) -> dict[str, str]:
  """Returns "text", "number" or "other" for each column, by a sample."""
  table: Any = source.splits["train"]
  rows = np.unique(np.linspace(0, len(table) - 1, _SAMPLE, dtype=int)).tolist()
  if isinstance(table, Table):
    return {n: _kind([table.columns[n][i] for i in rows]) for n in names}
  records = [table.records[i] for i in rows]
  return {n: _kind([r.get(n) for r in records]) for n in names}


def _kind(values) -> str:
  texts = [
    v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values
  ]
  # A missing value does not make texts of numbers; the reader names it.
  texts = [value for value in texts if value not in ("", None)] or texts
  if all(is_number(value) for value in texts):
    return "number"
  if not all(isinstance(value, str) for value in texts):
    return "other"
  words = np.mean([len(value.split()) for value in texts])
  differ = len({*texts}) > len(texts) / 2
  return "text" if words >= _FEW or (differ and words > 1) else "other"


def is_number(value: Any) -> bool:
  """Whether a value is a number, or written as one."""
  try:
    float(value)
  except (TypeError, ValueError, OverflowError):
    return False
  return True


def _among(names) -> str:
  shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
  return f"columns: {shown}"


def _ambiguous(decisions, names, what, flag) -> ValueError:
  return ValueError(
    f"data.source is {decisions.given('data.source')!r} with the columns"
    f" {', '.join(names)}: which holds {what}? Give {flag}"
  )
