"""Documents without labels, and where they come from."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from bitnet_jax import choices
from bitnet_jax.data import splits
from bitnet_jax.data.sources import tables, textfiles

DOCUMENTS = ("lines", "paragraphs", "marked", "whole")
DEFAULT = "whole"

_SCHEMES = "embedded:pydoc, file:PATH.txt, .tsv or .jsonl, and tfds:NAME"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Documents:
  """Texts that are used together.

  Attributes:
    texts: one or more, none of them empty.
  """

  texts: list[str]

  @property
  def classes(self) -> np.ndarray:
    """One class for all: a cut takes any of them."""
    return np.zeros(len(self.texts), np.int64)

  def take(self, rows: np.ndarray) -> "Documents":
    """Returns the documents where `rows`, bool [n], is true."""
    return Documents(texts=[self.texts[i] for i in np.flatnonzero(rows)])

  def __len__(self) -> int:
    return len(self.texts)

  @functools.cached_property
  def num_bytes(self) -> int:
    """How many bytes of UTF-8 there are."""
    return sum(len(text.encode()) for text in self.texts)

  @functools.cached_property
  def num_words(self) -> int:
    """How many words there are: what space separates."""
    return sum(len(text.split()) for text in self.texts)

  @functools.cached_property
  def num_lines(self) -> int:
    """How many lines there are; the last of a text needs no end."""
    return sum(
      text.count("\n") + (not text.endswith("\n")) for text in self.texts
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
  """Documents by split.

  Attributes:
    splits: among "train", "valid" and "test"; "train" is always there.
    fingerprint: names the texts by content, never by their place.
  """

  splits: dict[str, Documents]
  fingerprint: str


def load_corpus(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  documents: str | None = None,
  marker: str = "<|endoftext|>",
  column: str = "text",
  skip_empty: bool = False,
) -> Corpus:
  """Loads documents into memory and completes their splits.

  Splits that the source lacks are cut from "train", "test" first: documents
  drawn at random; where there is but one document, characters of its end.

  Args:
    source: `embedded:pydoc` (the help texts of Python, a document a topic),
      `file:PATH`, where PATH ends in `.txt`, `.tsv` or `.jsonl`, is packed if
      `.gz` or `.xz` follows, and may have `{split}` for a file a split (see
      `textfiles.find_splits`), or `tfds:NAME`, a prepared set.
    documents: what a document of a `.txt` is: the "whole" file, blank lines
      and all (the default), one of its "lines", "paragraphs" (what blank lines
      separate) or "marked" (what ends with a marker).
    marker: ends a document if they are "marked"; a line feed after it is no
      part of the next, and one before it no part of the document.
    column: where the text of `.tsv`, `.jsonl` and `tfds:` stands.
    skip_empty: whether to leave out, and log, documents of nothing but space,
      which are an error else.
    cuts: name splits, and cut those that the source lacks.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: tensorflow-datasets is not installed.
    ValueError: an argument or something in the data is not as it must be;
      names the line.
  """
  scheme, _, name = source.partition(":")
  _check(source, scheme, name, documents)
  names = dict(cuts.split_names)
  if scheme == "embedded":
    found = {"train": _pydoc()}
  elif scheme == "tfds":
    read, _ = tables.read_set(
      name, lambda _: [column], split_names=names, data_dir=cuts.data_dir
    )
    found = {
      key: _rows(table, column, skip_empty=skip_empty)
      for key, table in read.items()
    }
  else:
    found = {
      key: _read(path, documents or DEFAULT, marker, column, skip_empty)
      for key, path in textfiles.find_splits(name, names).items()
    }
  for key, texts in found.items():
    if not texts:
      raise ValueError(f"{source}: {key} has no document")
  completed = splits.complete(
    {key: Documents(texts=texts) for key, texts in found.items()},
    cuts,
    source=source,
    cut=_cut,
  )
  contents = {key: [split.texts] for key, split in completed.items()}
  return Corpus(splits=completed, fingerprint=fingerprint(contents))


def holds_plain_text(source: str) -> bool:
  """Whether a source is a `.txt`, packed or not."""
  scheme, _, name = source.partition(":")
  return scheme == "file" and textfiles.kind(name) == ".txt"


def fingerprint(contents: Mapping[str, Sequence[Sequence[str]]]) -> str:
  """Names columns of texts, by split, by their content."""
  digests = []
  for key in sorted(contents):
    digests.append(key)
    digests.extend(textfiles.digest(column) for column in contents[key])
  return f"sha256:{textfiles.digest(digests)}"


def _check(source, scheme, name, documents):
  """Checks the source and what its documents are."""
  known = scheme in ("file", "tfds") and name
  if not known and source != "embedded:pydoc":
    raise ValueError(
      f"unknown source of documents {source!r}; choose among {_SCHEMES}"
    )
  text = holds_plain_text(source)
  if scheme == "file" and not text and textfiles.kind(name) not in tables.KINDS:
    raise ValueError(
      f"{source} must end in .txt, .tsv or .jsonl, and then .gz or .xz if it is"
      " packed"
    )
  if documents is not None:
    choices.check(documents, DOCUMENTS, key="documents")
    if not text:
      raise ValueError(
        f"documents={documents!r} applies to .txt files only, not to {source}"
      )


def _pydoc():
  """The help texts that come with Python, in the order of their names."""
  from pydoc_data.topics import topics

  return [topics[name] for name in sorted(topics)]


def _read(path, documents, marker, column, skip_empty):
  """Reads the documents of one file."""
  if textfiles.kind(path) != ".txt":
    return _rows(tables.read(path, [column]), column, skip_empty=skip_empty)
  if documents == "lines":
    table = tables.read_lines(path, column)
    while table.columns[column] and not table.columns[column][-1]:
      table.columns[column].pop()  # Blank lines end a file, no document.
    return _rows(table, column, skip_empty=skip_empty)
  file = textfiles.find(path)
  content = textfiles.read(file)
  if documents == "whole":
    return [content] if content and not content.isspace() else []
  if documents == "paragraphs":
    return _paragraphs(content)
  return _marked(file, content, marker, skip_empty)


def _rows(table, column, *, skip_empty):
  """Returns a column of texts."""
  if not skip_empty:
    return table.texts(column)
  values = table.columns[column]
  kept = [i for i, value in enumerate(values) if not str(value).isspace()]
  kept = [i for i in kept if values[i] != ""]
  _log_empty(len(values) - len(kept), table.name)
  kept_table = dataclasses.replace(
    table,
    columns={column: [values[i] for i in kept]},
    places=[table.number(i) for i in kept],
  )
  return kept_table.texts(column)


def _log_empty(count, name):
  if count:
    logging.info("Left %d empty documents of %s out", count, name)


def _paragraphs(content):
  """Cuts a text at its blank lines."""
  found, lines = [], []
  for line in [*content.split("\n"), ""]:
    if line and not line.isspace():
      lines.append(line)
    elif lines:
      found.append("\n".join(lines))
      lines = []
  return found


def _marked(file: pathlib.Path, content, marker, skip_empty):
  """Cuts a text at its markers."""
  if not marker:
    raise ValueError("marker must not be empty")
  found, line, empty = [], 1, 0
  pieces = content.split(marker)
  if not pieces[-1] or pieces[-1].isspace():
    pieces.pop()  # the end of the file
  for piece in pieces:
    if piece and not piece.isspace():
      found.append(piece.removeprefix("\n").removesuffix("\n"))
    elif skip_empty:
      empty += 1
    else:
      raise ValueError(
        f"{file}, line {line}: the document that {marker} ends is empty"
      )
    line += piece.count("\n")
  _log_empty(empty, file)
  return found


def _cut(split: Documents, *, fraction: float, seed: int):
  """Cuts documents, or a single one in two: see `splits.cut`."""
  if len(split) > 1:
    return splits.cut(split, fraction=fraction, seed=seed)
  (text,) = split.texts
  border = len(text) - round(fraction * len(text))
  kept, taken = Documents(texts=[text[:border]]), [text[border:]]
  return kept, Documents(texts=taken if taken[0] else [])
