"""Reads CSV tables with a header: of texts, or of features."""

import array
import csv
import dataclasses
import itertools
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from bitnet_jax.data import splits
from bitnet_jax.data.sources import features, textfiles
from bitnet_jax.data.sources.tables import Source, Table, check_names, listed

_DELIMITERS = ",;\t"
_QUOTED = re.compile('"(?:[^"]|"")*+"?+')
_NUMBER = re.compile(r"[-+]?[0-9]*[.,]?[0-9]+(?:[eE][-+]?[0-9]+)?")
_LONGEST_NAME = 100  # characters of a column's name
_SHOWN = 40  # characters of what is in a file, in messages
# What the errors of `csv` mean.
_MEANING = {
  "unexpected end": "a quote is opened and never closed",
  "expected after": (
    "a field has more text behind its closing quote; a quote inside of quotes"
    " must be doubled"
  ),
  "new-line character": "a carriage return is outside of quotes",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
  """The fields of a row, and the line it begins with."""

  fields: list[str]
  line: int


def read(pattern: str, cuts: splits.Cuts) -> Source:
  """Reads one CSV file per split.

  The first row names the columns. The one of comma, semicolon and tab that it
  has most of separates the fields of all rows. Fields may be quoted, with
  quotes in them doubled, and may then have several lines. Blank lines, and
  columns without a name, such as the index that pandas writes, are left out.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a file or one of its rows is wrong; names the line.
  """
  return textfiles.read_splits(pattern, cuts, _read)


def read_features(pattern: str, cuts: splits.Cuts, **options: Any) -> Source:
  """Reads one CSV file of numbers and classes per split; see `features.read`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a file or one of its rows is wrong; names the line.
  """
  return features.read(pattern, cuts, _read_features, **options)


def _read(file: pathlib.Path) -> Table:
  """Reads the table of one file."""
  names, rows = open_table(file)
  columns: list[list[str]] = [[] for _ in names]
  places = array.array("q")
  for row in rows:
    places.append(row.line)
    for column, field in zip(columns, row.fields, strict=True):
      column.append(field)
  named = zip(names, columns, strict=True)
  found = {name: column for name, column in named if name}
  for name, column in found.items():
    if name in column:
      logging.warning(
        "%s, line %d: the first row names the columns, but %r is also a value"
        " of its column; is it the name?",
        file,
        places[column.index(name)],
        name,
      )
  return Table(columns=found, name=str(file), places=places)


def _read_features(file: pathlib.Path, label: str, names: list[str]) -> Table:
  """Reads the features of one file; see `features.read`."""
  header, rows = open_table(file)
  features.choose(str(file), [name for name in header if name], label, names)
  where = [header.index(name) for name in names]
  at = header.index(label)
  values, labels, places = array.array("f"), [], array.array("q")
  for row in rows:
    fields = row.fields
    try:
      values.extend([float(fields[i]) for i in where])
    except (OverflowError, ValueError):
      for name, i in zip(names, where, strict=True):
        features.check_number(f"{file}, line {row.line}", name, fields[i])
    labels.append(fields[at])
    places.append(row.line)
  inputs = np.frombuffer(values, np.float32).reshape(len(labels), len(names))
  return Table(
    columns={"inputs": inputs, "labels": labels}, name=str(file), places=places
  )


def open_table(file: pathlib.Path) -> tuple[list[str], Iterator[Row]]:
  """Returns the names of the columns and the rows of a file, read lazily.

  Columns without a name are called "". Rows have as many fields as there are
  columns.

  Raises:
    ValueError: the header is wrong, or, later, a row; names file and line.
  """
  lines = _without_nul(file)
  begin = []
  for line in lines:
    begin.append(line)
    if not line.isspace():
      break
  else:
    raise ValueError(f"{file} is empty: it lacks a header")
  if begin[-1].lstrip()[:1] in ("<", "{"):
    raise ValueError(
      f"{file} is no CSV table: it begins with {begin[-1][:_SHOWN]!r}"
    )
  outside = _QUOTED.sub("", begin[-1])
  delimiter = max(_DELIMITERS, key=outside.count)
  count = outside.count(delimiter)
  rows = parse(
    itertools.chain(begin, lines),
    where=str(file),
    delimiter=delimiter,
    skipinitialspace=0 < count == outside.count(f"{delimiter} "),
  )
  rows = (row for row in rows if row.fields)
  header = next(rows)
  names = [name.strip() for name in header.fields]
  _check_header(f"{file}, line {header.line}", names)
  return names, _even(rows, file, names, delimiter)


def parse(lines: Iterable[str], *, where: str, **options: Any) -> Iterator[Row]:
  """Yields the rows of a table; blank lines have no fields.

  Args:
    lines: with their ends.
    where: names the table in messages.
    **options: of `csv.reader`.

  Raises:
    ValueError: quotes are wrong; names the line.
  """
  limit = csv.field_size_limit(sys.maxsize)  # The default is 128 KB.
  line = 1
  try:
    reader = csv.reader(lines, strict=True, **options)
    for fields in reader:
      yield Row(fields, line)
      line = reader.line_num + 1
  except csv.Error as error:
    found = [v for k, v in _MEANING.items() if k in str(error)]
    raise ValueError(f"{where}, line {line}: {(*found, error)[0]}") from error
  finally:
    csv.field_size_limit(limit)


def _without_nul(file):
  """Yields the lines of a file, which has no NUL characters."""
  for number, line in enumerate(textfiles.stream(file), start=1):
    if "\0" in line:
      raise ValueError(
        f"{file}, line {number} has a NUL character: the file is no text, or"
        " not in UTF-8"
      )
    yield line


def _check_header(where, names):
  """Raises a ValueError unless the first row names columns."""
  named = [name for name in names if name]
  if not named:
    raise ValueError(f"{where}: the first row must name the columns")
  if len(named) < len(names):
    logging.info(
      "%s: %d of %d columns have no name and are left out",
      where,
      len(names) - len(named),
      len(names),
    )
  numbers = [name for name in named if _NUMBER.fullmatch(name)]
  # As pandas names columns: 0, 1, 2, ...
  counted = [[str(i + j) for i in range(len(numbers))] for j in (0, 1)]
  odd = numbers if numbers not in counted else []
  odd += [name for name in named if len(name) > _LONGEST_NAME]
  if odd:
    raise ValueError(
      f"{where}: the first row must name the columns, but it looks like data,"
      f" {odd[0][:_SHOWN]!r}"
    )
  check_names(where, named)


def _even(rows, file, names: Sequence[str], delimiter) -> Iterator[Row]:
  """Yields rows; there must be some, with as many fields as the header."""
  row = None
  for row in rows:
    if len(row.fields) != len(names):
      hint = ""
      if len(row.fields) > len(names):
        hint = f"; a text with {delimiter!r} in it must be in quotes"
      raise ValueError(
        f"{file}, line {row.line}: {len(row.fields)} fields, but the header has"
        f" {len(names)}, {listed(names)}{hint}"
      )
    yield row
  if row is None:
    raise ValueError(f"{file} has a header, but no rows")
