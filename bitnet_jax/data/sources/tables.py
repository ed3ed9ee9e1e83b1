"""Tables: named columns of a split's examples, with their places in files."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rows:
  """Rows of a file or set, by their numbers there.

  Attributes:
    name: of the file or set.
    unit: what a row is there.
    first: number of the first row there.
    places: what names each row there; `None` for numbers from `first` on.
  """

  name: str
  unit: str = "line"
  first: int = 1
  places: Sequence[int | str] | None = None

  def number(self, row: int) -> int | str:
    """Returns the number of a row there."""
    return self.places[row] if self.places else self.first + row

  def place(self, row: int) -> str:
    """Returns where a row stands, for messages."""
    return f"{self.name}, {self.unit} {self.number(row)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(_Rows):
  """Columns of equal length in memory.

  Attributes:
    columns: lists or arrays by the name of the column.
  """

  columns: Mapping[str, Any]

  def __len__(self) -> int:
    return len(next(iter(self.columns.values()), ()))

  def take(self, rows: Sequence[int]) -> "Table":
    """Returns the rows of these indices."""
    columns = {k: [v[i] for i in rows] for k, v in self.columns.items()}
    places = [self.number(i) for i in rows]
    return dataclasses.replace(self, columns=columns, places=places)

  def read(self, *names: str) -> "Table":
    """Returns the table of these columns; a ValueError names missing ones."""
    _check_columns(self.name, self.columns, names)
    return dataclasses.replace(
      self, columns={name: self.columns[name] for name in names}
    )

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
    return list(values)

  def numbers(self, column: str) -> np.ndarray:
    """Returns a column of numbers, float32 [n].

    Raises:
      ValueError: something is not a finite number; names its place.
    """
    found = np.empty(len(self), np.float32)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records(_Rows):
  """A table whose examples are read lazily.

  Attributes:
    records: a sequence of mappings from the name of a column to its value.
  """

  records: Sequence[Mapping[str, Any]]

  def __len__(self) -> int:
    return len(self.records)

  def read(self, *names: str) -> Table:
    """Reads these columns of all examples, in one pass.

    Raises:
      ValueError: a column is missing, a text is not UTF-8, or an integer has
        more than 64 bits; names the place.
    """
    columns = {name: [] for name in names}
    for row in range(len(self)):
      record = self.records[row]
      _check_columns(self.place(row), record, names)
      for name, column in columns.items():
        try:
          column.append(_value(record[name]))
        except ValueError as error:
          raise ValueError(f"{self.place(row)}: {name} {error}") from error
    origin = {f.name: getattr(self, f.name) for f in dataclasses.fields(_Rows)}
    return Table(columns=columns, **origin)


def _value(value):
  """Returns a value, bytes as text; a text must be UTF-8."""
  try:
    if isinstance(value, bytes):
      return value.decode()
    if isinstance(value, str):
      value.encode()
  except UnicodeError as error:
    raise ValueError(f"is not text: {error}") from error
  if isinstance(value, int) and value.bit_length() > 63:
    raise ValueError("is an integer of more than 64 bits")
  return value


def _check_columns(where, there, names):
  """Raises a ValueError unless columns are there."""
  missing = [name for name in names if name not in there]
  if missing:
    raise ValueError(
      f"{where} has no column {' or '.join(missing)}, it has"
      f" {', '.join(there) or 'none'}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """The tables of a source, with its own description of them.

  Attributes:
    splits: tables by our names of the splits, "train" among them.
    fingerprint: names content or version; `None` where that of the columns is
      to be taken.
    names: columns of the tables, where they are not in memory.
    num_classes: as the source says, `None` where it says nothing.
    texts: columns of the texts, where the source says so.
    label: the column of the labels, likewise.
    pair: columns of what a model reads and what it writes, likewise.
    class_names: names of the classes, by column of labels.
  """

  splits: Mapping[str, Table | Records]
  fingerprint: str | None = None
  names: tuple[str, ...] = ()
  num_classes: int | None = None
  texts: tuple[str, ...] = ()
  label: str | None = None
  pair: tuple[str, ...] = ()
  class_names: Mapping[str, Sequence[str]] = dataclasses.field(
    default_factory=dict
  )
