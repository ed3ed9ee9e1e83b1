"""Texts in columns: lines, TSV, JSONL, and sets of TensorFlow Datasets."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax.data import textfiles, tfds
from bitnet_jax.files import parse_json

KINDS = (".tsv", ".jsonl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """Columns of equal length, and where they come from.

  Attributes:
    columns: values by the name of the column.
    name: of the file or set.
    first: number of the first row there.
    unit: what a row is there.
  """

  columns: Mapping[str, list[Any]]
  name: str
  first: int = 1
  unit: str = "line"

  def place(self, row: int) -> str:
    """Returns where a row stands, for messages."""
    return f"{self.name}, {self.unit} {self.first + row}"

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

  TSV: fields are separated by tabs, and no character quotes. JSONL: an object a
  line. Either may be packed.

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
  lines = textfiles.lines(file)
  if not lines:
    raise ValueError(f"{file} is empty: it lacks a header")
  header = lines[0].split("\t")
  if len({*header}) < len(header):
    raise ValueError(f"{file}, line 1: a column is named twice, {header}")
  _check_columns(str(file), header, columns)
  rows = [line.split("\t") for line in lines[1:]]
  for row, fields in enumerate(rows):
    if len(fields) != len(header):
      raise ValueError(
        f"{file}, line {row + 2}: {len(fields)} fields, but the header has"
        f" {len(header)}, {header}"
      )
  places = {column: header.index(column) for column in columns}
  return Table(
    columns={
      column: [fields[place] for fields in rows]
      for column, place in places.items()
    },
    name=str(file),
    first=2,
  )


def _jsonl(file: pathlib.Path, columns):
  """Reads columns of a JSONL file."""
  found = {column: [] for column in columns}
  for number, line in enumerate(textfiles.lines(file), start=1):
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
  return Table(columns=found, name=str(file))


def _decoded(where, column, value):
  """Returns a value of JSON, a text only if it is one in UTF-8 too."""
  if isinstance(value, str):
    try:
      value.encode()
    except UnicodeEncodeError as error:
      raise ValueError(f"{where}: {column} is not text: {error}") from error
  return value


def _check_columns(where, there, columns):
  """Checks that columns are there."""
  missing = [column for column in columns if column not in there]
  if missing:
    raise ValueError(
      f"{where} has no column {' or '.join(missing)}, it has"
      f" {', '.join(there) or 'none'}"
    )
