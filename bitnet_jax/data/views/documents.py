"""Loads documents without labels, for language models."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from absl import logging

from bitnet_jax import choices
from bitnet_jax.data import splits
from bitnet_jax.data.sources import registry, textfiles, textfolders
from bitnet_jax.data.sources.tables import Table
from bitnet_jax.data.splits import Dataset

# Readers of plain text, which is cut into documents.
_TEXTS = (
  textfiles.read_whole,
  textfolders.read_documents,
  textfolders.read_glob,
)
DOCUMENTS = ("lines", "paragraphs", "marked", "whole")
HOLD_OUT = ("documents", "ends")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Documents(splits.Columns):
  """A split of documents, none of which is empty."""

  texts: Sequence[str]

  @functools.cached_property
  def num_bytes(self) -> int:
    """Bytes of UTF-8 of all texts."""
    return sum(len(text.encode()) for text in self.texts)

  @functools.cached_property
  def num_words(self) -> int:
    """Words of all texts, separated by whitespace."""
    return sum(len(text.split()) for text in self.texts)

  @functools.cached_property
  def num_lines(self) -> int:
    """Lines of all texts; the last one may lack its line feed."""
    return sum(
      text.count("\n") + (not text.endswith("\n")) for text in self.texts
    )


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  documents: str | None = None,
  marker: str = "<|endoftext|>",
  column: str = "text",
  skip_empty: bool = False,
  hold_out: str = "documents",
) -> Dataset[Documents]:
  """Loads documents; their fingerprint is that of their content.

  Args:
    source: `embedded:pydoc` (the help texts of Python, one document per topic),
      `file:PATH`, where PATH ends in `.txt`, `.csv`, `.tsv`, `.jsonl` or
      `.parquet` (see `textfiles` for compressed files and `{split}`),
      `tfds:NAME`, a prepared set, or `hf:NAME`, a set of the library
      `datasets`.
    cuts: for names of splits, and for those that the source lacks.
    documents: what a document of a `.txt` is: the "whole" file with its blank
      lines (the default), each of its "lines", "paragraphs" between blank
      lines, or "marked" text in front of a marker.
    marker: ends a document if they are "marked". Neither the line feed before
      it nor the one after it belongs to a document.
    column: column of the text in tables.
    skip_empty: whether documents of only whitespace are left out, which is
      logged, instead of being an error.
    hold_out: what `cuts` takes for a split that the source lacks: "documents"
      drawn at random, or characters of the "ends" of all documents. A single
      document always gives its end.

  Raises:
    ValueError: an argument or something in the data is wrong; names the line.
  """
  read, rest = registry.find("documents", source)
  if documents is not None:
    choices.check(documents, DOCUMENTS, key="documents")
    if not is_plain_text(source):
      raise ValueError(
        f"documents={documents!r} applies to .txt files only, not to {source}"
      )
  if documents == "marked" and not marker:
    raise ValueError("marker must not be empty")
  options: dict[str, Any] = {}
  if is_plain_text(source):
    column = "text"
    options["cut"] = _Cut(documents=documents or "whole", marker=marker)
  found = registry.read(read, rest, cuts, **options)
  (column,) = found.texts or (column,)
  texts = {}
  for key, table in found.splits.items():
    table = table.read(column, hint="data.column names that of the texts")
    if read in _TEXTS and documents in (None, "whole") and len(table) == 1:
      (content,) = table.columns[column]
      table = table.take([0] if content and not content.isspace() else [])
    texts[key] = Documents(texts=_texts(table, column, skip_empty))
  cut_texts = cut_ends if hold_out == "ends" else cut
  return splits.make_dataset(texts, cuts, source=source, cut=cut_texts)


def is_plain_text(source: str) -> bool:
  """Whether a source is plain text: a `.txt` file, or a folder of them."""
  read, _ = registry.find("documents", source)
  return read in _TEXTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cut:
  """Splits the text of a file into a table with one document per row.

  Attributes:
    documents: a name in `DOCUMENTS`.
    marker: see `load`.
  """

  documents: str
  marker: str

  def __call__(self, content: str, name: str) -> Table:
    unit = "line"
    if self.documents == "whole":
      rows = [(1, content)]
    elif self.documents == "paragraphs":
      rows = _paragraphs(content)
    elif self.documents == "lines":
      rows = list(enumerate(textfiles.split_lines(content), start=1))
      while rows and not rows[-1][1]:
        rows.pop()  # Blank lines at the end of a file are not documents.
    else:
      rows = _marked(content, self.marker)
      unit = f"document before {self.marker}, line"
    return Table(
      columns={"text": [text for _, text in rows]},
      name=name,
      unit=unit,
      places=[line for line, _ in rows],
    )


def _paragraphs(content):
  """Returns the texts between blank lines, each with its first line."""
  found, lines = [], []
  for number, line in enumerate([*content.split("\n"), ""], start=1):
    if line and not line.isspace():
      lines.append(line)
    elif lines:
      found.append((number - len(lines), "\n".join(lines)))
      lines = []
  return found


def _marked(content, marker):
  """Returns the texts that markers end, each with its first line."""
  found, line = [], 1
  texts = content.split(marker)
  if not texts[-1] or texts[-1].isspace():
    texts.pop()  # the end of the file
  for text in texts:
    inner = text.removeprefix("\n").removesuffix("\n")
    found.append((line, inner if text and not text.isspace() else ""))
    line += text.count("\n")
  return found


def _texts(table, column, skip_empty):
  """Returns the texts of a table."""
  if skip_empty:
    values = table.columns[column]
    rows = [i for i, v in enumerate(values) if v != "" and not str(v).isspace()]
    if len(rows) < len(values):
      empty = len(values) - len(rows)
      logging.info("Left %d empty documents of %s out", empty, table.name)
    table = table.take(rows)
  return table.texts(column, hint="data.skip_empty=True leaves such ones out")


def cut(split: Documents, *, fraction: float, seed: int):
  """Cuts documents, or a single one in two: see `splits.cut`."""
  if len(split) > 1:
    return splits.cut(split, fraction=fraction, seed=seed)
  return cut_ends(split, fraction=fraction, seed=seed)


def cut_ends(split: Documents, *, fraction: float, seed: int):
  """Cuts each document in two: its beginning, and a fraction from its end."""
  del seed  # Nothing is drawn.
  borders = [len(text) - round(fraction * len(text)) for text in split.texts]
  pairs = [*zip(split.texts, borders, strict=True)]
  return (
    Documents(texts=[text[:border] for text, border in pairs]),
    Documents(texts=[text[border:] for text, border in pairs if text[border:]]),
  )
