"""Reads TSV tables with a header."""

import pathlib
import re

from absl import logging

from bitnet_jax.data import splits
from bitnet_jax.data.sources import csvfiles, textfiles
from bitnet_jax.data.sources.csvfiles import Row
from bitnet_jax.data.sources.tables import Source, Table

_QUOTED = re.compile(r'(?:^|[\t\n])"')  # a field that begins with a quote
# A file whose quotes are around fields, or doubled in those.
_WELL_FORMED = re.compile(
  r'(?:(?:"(?:[^"]|"")*+"|[^"\t\n]*+)(?:[\t\n]|\Z))*+\Z'
)


def read(pattern: str, cuts: splits.Cuts) -> Source:
  """Reads one TSV file per split.

  Quotes around fields are removed, as `csv` and pandas write them, if the file
  needs them: if a field has a tab, a line feed or a doubled quote, or the
  header is quoted. Otherwise a quote is a character of the text, as in the
  files of GLUE. A file that could be read either way logs a warning. Blank
  lines at the end are ignored.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a file or one of its lines is wrong.
  """
  return textfiles.read_splits(pattern, cuts, _read)


def _read(file: pathlib.Path):
  """Reads the table of one file."""
  header, *rows = _choose(file, textfiles.read(file).rstrip("\n"))
  names = header.fields
  if len({*names}) < len(names):
    raise ValueError(
      f"{file}, line {header.line}: a column is named twice, {names}"
    )
  for row in rows:
    if len(row.fields) != len(names):
      raise ValueError(
        f"{file}, line {row.line}: {len(row.fields)} fields, but the header has"
        f" {len(names)}, {names}"
      )
  return Table(
    columns={n: [row.fields[i] for row in rows] for i, n in enumerate(names)},
    name=str(file),
    places=[row.line for row in rows],
  )


def _choose(file, content) -> list[Row]:
  """Returns the rows of a file, quotes around fields taken off or not."""
  if not content:
    raise ValueError(f"{file} is empty: it lacks a header")
  lines = content.split("\n")
  # Without quotes, `csv` would take a lone carriage return for a line end.
  plain = [Row(line.split("\t"), i) for i, line in enumerate(lines, start=1)]
  if not _QUOTED.search(content):
    return plain
  quoted = _unquoted(lines)
  if quoted is None or not _is_table(quoted):
    return plain
  if not _is_table(plain):
    return quoted
  # Both are tables. If no field had to be quoted, the quotes belong to the
  # texts.
  needed = _WELL_FORMED.match(content) is not None and (
    content.startswith('"')
    or any(
      c in field for row in quoted for field in row.fields for c in '\t\n"'
    )
  )
  logging.warning(
    "%s can be read in two ways, with the quotes around fields (%d rows) or"
    " without (%d rows); it is read %s them",
    file,
    len(plain) - 1,
    len(quoted) - 1,
    "without" if needed else "with",
  )
  return quoted if needed else plain


def _is_table(rows):
  return len({len(row.fields) for row in rows}) == 1


def _unquoted(lines) -> list[Row] | None:
  """Returns the rows with quoted fields as `csv` reads them, if it can."""
  ended = (f"{line}\n" for line in lines)
  try:
    rows = list(csvfiles.parse(ended, where="", delimiter="\t"))
  except ValueError:
    return None
  return [row if row.fields else Row([""], row.line) for row in rows]
