"""Texts in columns: lines, TSV, JSONL, and sets of TensorFlow Datasets."""

import csv
import dataclasses
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from bitnet_jax.data.sources import textfiles, tfds
from bitnet_jax.files import parse_json

_QUOTED = re.compile(r'(?:^|[\t\n])"')  # a field that begins with a quote
# A file whose quotes are around fields, or doubled in those.
_WELL_FORMED = re.compile(
  r'(?:(?:"(?:[^"]|"")*+"|[^"\t\n]*+)(?:[\t\n]|\Z))*+\Z'
)

KINDS = (".tsv", ".jsonl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """Columns of equal length, and where they come from.

  Attributes:
    columns: values by the name of the column.
    name: of the file or set.
    first: number of the first row there.
    unit: what a row is there.
    places: number of each row there; `None` if they follow each other.
  """

  columns: Mapping[str, list[Any]]
  name: str
  first: int = 1
  unit: str = "line"
  places: Sequence[int] | None = None

  def place(self, row: int) -> str:
    """Returns where a row stands, for messages."""
    return f"{self.name}, {self.unit} {self.number(row)}"

  def number(self, row: int) -> int:
    """Returns the number of a row there."""
    return self.places[row] if self.places else self.first + row

  def texts(self, column: str) -> list[str]:
    """Returns a column of texts.

    Raises:
      ValueError: something is no text, or nothing but space; names its place.
    """
    values = self.columns[column]
    for row, value in enumerate(values):
      if not isinstance(value, str):
        raise ValueError(
          f"{self.place(row)}: {column} must be a text, it is {value!r}"
        )
      if not value or value.isspace():
        raise ValueError(f"{self.place(row)}: {column} is empty")
    return values

  def numbers(self, column: str) -> np.ndarray:
    """Returns a column of numbers, float32 [n].

    Raises:
      ValueError: something is not a finite number; names its place.
    """
    found = np.empty(len(self.columns[column]), np.float32)
    for row, value in enumerate(self.columns[column]):
      try:
        found[row] = float(value)
      except (OverflowError, TypeError, ValueError):
        found[row] = np.nan
      if not np.isfinite(found[row]):
        raise ValueError(
          f"{self.place(row)}: {column} must be a finite number, it is"
          f" {value!r}"
        )
    return found


def read(path: str, columns: Sequence[str]) -> Table:
  """Reads columns of a TSV file with a header, or of a JSONL file.

  TSV: fields are separated by tabs. If quotes around fields are what makes the
  file a table (a field holds a tab, a line feed or a doubled quote, or the
  header is quoted), they are taken off, as `csv` and pandas write it. Otherwise
  a quote is a character of a text, as in the files of GLUE. A file that could
  be read both ways is a warning. JSONL: an object a line.

  Either may be packed. Blank lines of JSONL, and at the end of TSV, are left
  out.

  Args:
    path: ends in `.tsv` or `.jsonl`, and then `.gz` or `.xz` if it is packed.
    columns: those to read.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file or one of its lines is not as it must be, or lacks a
      column.
  """
  file = textfiles.find(path)
  if textfiles.kind(path) == ".tsv":
    return _tsv(file, columns)
  return _jsonl(file, columns)


def read_lines(path: str, column: str) -> Table:
  """Reads a file as a table of one column, a row a line."""
  file = textfiles.find(path)
  return Table(columns={column: textfiles.lines(file)}, name=str(file))


def read_set(
  name: str,
  choose: Callable[[Any], Sequence[str]],
  *,
  split_names: Mapping[str, str],
  data_dir: str | None,
) -> tuple[dict[str, Table], Any]:
  """Reads columns of all splits of a prepared set.

  Args:
    name: see `tfds.open_splits`.
    choose: tells from the features of the set which columns to read.
    split_names: see `tfds.open_splits`.
    data_dir: likewise.

  Returns:
    Tables by split, texts as `str`, classes and numbers as they are; and the
    features.

  Raises:
    ValueError: see `tfds.open_splits`; or a column is missing.
  """
  info, sources = tfds.open_splits(
    name, data_dir=data_dir, split_names=split_names
  )
  columns = choose(info)
  missing = [column for column in columns if column not in info.features]
  if missing:
    raise ValueError(
      f"tfds:{name} has no column {' or '.join(missing)}, it has"
      f" {', '.join(info.features)}"
    )
  tables = {
    key: Table(
      columns=_columns(source, columns),
      name=f"tfds:{name} {key}",
      first=0,
      unit="example",
    )
    for key, source in sources.items()
  }
  return tables, info.features


def _columns(source, columns):
  """Reads the examples of a split."""
  found = {column: [] for column in columns}
  for i in range(len(source)):
    example = source[i]
    for column in columns:
      value = example[column]
      found[column].append(
        value.decode() if isinstance(value, bytes) else value
      )
  return found


def _tsv(file: pathlib.Path, columns):
  """Reads columns of a TSV file."""
  header, *rows = _choose(file, textfiles.read(file).rstrip("\n"))
  where = f"{file}, line {header.line}"
  names = header.fields
  if len({*names}) < len(names):
    raise ValueError(f"{where}: a column is named twice, {names}")
  _check_columns(str(file), names, columns)
  for row in rows:
    if len(row.fields) != len(names):
      raise ValueError(
        f"{file}, line {row.line}: {len(row.fields)} fields, but the header has"
        f" {len(names)}, {names}"
      )
  places = {column: names.index(column) for column in columns}
  return Table(
    columns={
      column: [row.fields[place] for row in rows]
      for column, place in places.items()
    },
    name=str(file),
    places=[row.line for row in rows],
  )


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
  """A row of a TSV file: its fields, and the line it begins with."""

  fields: list[str]
  line: int


def _choose(file, content) -> list[_Row]:
  """Returns the rows of a TSV file, quotes around fields taken off or not."""
  if not content:
    raise ValueError(f"{file} is empty: it lacks a header")
  lines = content.split("\n")
  plain = [_Row(line.split("\t"), i) for i, line in enumerate(lines, start=1)]
  if not _QUOTED.search(content):
    return plain
  quoted = _unquoted(lines)
  if quoted is None or not _is_table(quoted):
    return plain
  if not _is_table(plain):
    return quoted
  # Both are tables. If no field had to be quoted, the quotes are of texts that
  # someone says.
  needed = _WELL_FORMED.match(content) is not None and (
    content.startswith('"') or any(map(_must_be_quoted, quoted))
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


def _must_be_quoted(row):
  return any(c in field for field in row.fields for c in '\t\n"')


def _is_table(rows):
  return len({len(row.fields) for row in rows}) == 1


def _unquoted(lines) -> list[_Row] | None:
  """Returns the rows with quoted fields as `csv` reads them, if it can."""
  limit = csv.field_size_limit(sys.maxsize)  # The default is 128 KB.
  try:
    reader = csv.reader(
      (f"{line}\n" for line in lines), delimiter="\t", strict=True
    )
    return list(_numbered(reader))
  except csv.Error:
    return None
  finally:
    csv.field_size_limit(limit)


def _numbered(reader) -> Iterator[_Row]:
  line = 1
  for fields in reader:
    yield _Row(fields or [""], line)
    line = reader.line_num + 1


def _jsonl(file: pathlib.Path, columns):
  """Reads columns of a JSONL file."""
  found, places = {column: [] for column in columns}, []
  for number, line in enumerate(textfiles.lines(file), start=1):
    if not line or line.isspace():
      continue
    where = f"{file}, line {number}"
    try:
      values = parse_json(line)
      line.encode()
    except ValueError as error:
      raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(values, dict):
      raise ValueError(f"{where} is not an object but {line[:40]}")
    _check_columns(where, values, columns)
    for column in columns:
      found[column].append(_decoded(where, column, values[column]))
    places.append(number)
  return Table(columns=found, name=str(file), places=places)


def _decoded(where, column, value):
  """Returns a value of JSON: text only if it is UTF-8, integers of 64 bits."""
  if isinstance(value, str):
    try:
      value.encode()
    except UnicodeEncodeError as error:
      raise ValueError(f"{where}: {column} is not text: {error}") from error
  if isinstance(value, int) and value.bit_length() > 63:
    raise ValueError(f"{where}: {column} is an integer of more than 64 bits")
  return value


def _check_columns(where, there, columns):
  """Checks that columns are there."""
  missing = [column for column in columns if column not in there]
  if missing:
    raise ValueError(
      f"{where} has no column {' or '.join(missing)}, it has"
      f" {', '.join(there) or 'none'}"
    )
