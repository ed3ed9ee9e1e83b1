"""Tables: the examples of each split of a source, and where each one stands."""

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax import choices
from bitnet_jax.data.splits import OnDisk

_LISTED = 20  # names in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rows:
  """Rows with the places that messages name.

  Attributes:
    name: name of the file or set.
    unit: what a row is there; "" if `places` say where it is.
    first: number of the first row there.
    places: number or name of each row there; `None` to count from `first`.
  """

  name: str
  unit: str = "line"
  first: int = 1
  places: Sequence[int | str] | None = None

  def number(self, row: int) -> int | str:
    """Returns the number of a row in its file or set."""
    return self.places[row] if self.places else self.first + row

  def place(self, row: int) -> str:
    """Returns where a row stands, for messages."""
    number = self.number(row)
    return f"{self.name}, {self.unit} {number}" if self.unit else f"{number}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(_Rows):
  """Columns of equal length in memory.

  Attributes:
    columns: lists or arrays by the name of the column.
  """

  columns: Mapping[str, Any]

  def __len__(self) -> int:
    if self.places:
      return len(self.places)
    return len(next(iter(self.columns.values()), ()))

  def take(self, rows: Sequence[int]) -> "Table":
    """Returns the rows of these indices."""
    columns = {
      key: column.select(rows)
      if isinstance(column, OnDisk)
      else [column[i] for i in rows]
      for key, column in self.columns.items()
    }
    places = [self.number(i) for i in rows]
    return dataclasses.replace(self, columns=columns, places=places)

  def read(self, *names: str, hint: str = "") -> "Table":
    """Returns some of the columns.

    Args:
      *names: of the columns.
      hint: what to do, for the error.

    Raises:
      ValueError: a column is missing; names those that are there.
    """
    check_columns(self.name, self.columns, names, hint)
    columns = {name: self.columns[name] for name in names}
    return dataclasses.replace(self, columns=columns)

  def texts(self, column: str, *, hint: str = "") -> Sequence[str]:
    """Returns a column of texts, which stays on disk if it is there.

    Args:
      column: its name.
      hint: what to do about an empty text, for the error.

    Raises:
      ValueError: something is no text, or only whitespace; names its place.
    """
    values = self.columns[column]
    for row, value in enumerate(values):
      if not isinstance(value, str):
        raise ValueError(
          f"{self.place(row)}: {column} must be a text, it is {value!r}"
        )
      if not value or value.isspace():
        raise ValueError(
          f"{self.place(row)}: {column} is empty{hint and f'; {hint}'}"
        )
    return values if isinstance(values, OnDisk) else list(values)

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
    records: a sequence of mappings from column to value.
  """

  records: Sequence[Mapping[str, Any]]

  def __len__(self) -> int:
    return len(self.records)

  def read(self, *names: str, hint: str = "") -> Table:
    """Reads columns of all examples, in one pass; see `Table.read`.

    Raises:
      ValueError: a column is missing, a text is not UTF-8, or an integer has
        more than 64 bits; names the place.
    """
    columns = {name: [] for name in names}
    for row in range(len(self)):
      record = self.records[row]
      check_columns(self.place(row), record, names, hint)
      for name, column in columns.items():
        try:
          column.append(_value(record[name]))
        except ValueError as error:
          raise ValueError(f"{self.place(row)}: {name} {error}") from error
    rows = {f.name: getattr(self, f.name) for f in dataclasses.fields(_Rows)}
    return Table(columns=columns, **rows)


def join(parts: Sequence[Table | Records], name: str) -> Table | Records:
  """Returns the rows of several tables, in files of one kind, as one table.

  Raises:
    ValueError: their columns differ; names both.
  """
  if len(parts) == 1:
    return parts[0]
  places = _Places(parts)
  loaded = [part for part in parts if isinstance(part, Table)]
  if not loaded:
    records = [r for part in parts for r in part.records]  # type: ignore
    return Records(records=records, name=name, unit="", places=places)
  first = loaded[0]
  for part in loaded:
    if {*part.columns} != {*first.columns}:
      raise ValueError(
        f"{part.name} has the columns {listed(list(part.columns))}, but"
        f" {first.name} has {listed(list(first.columns))}; the files of one"
        " table must have the same"
      )
  columns = _Joined([part.columns for part in loaded])
  return Table(columns=columns, name=name, unit="", places=places)


class _Joined(Mapping[str, Any]):
  """The columns of several tables, joined when they are asked for."""

  def __init__(self, parts: Sequence[Mapping[str, Any]]):
    self._parts = parts

  def __len__(self) -> int:
    return len(self._parts[0])

  def __iter__(self) -> Iterator[str]:
    return iter(self._parts[0])

  def __contains__(self, name: object) -> bool:
    return name in self._parts[0]

  def __getitem__(self, name: str) -> Any:
    columns = [part[name] for part in self._parts]
    if isinstance(columns[0], np.ndarray):
      return np.concatenate(columns)
    return [value for column in columns for value in column]


class _Places(Sequence[str]):
  """Where the rows of several tables are."""

  def __init__(self, parts: Sequence[Table | Records]):
    self._parts = parts
    self._ends = list(itertools.accumulate(map(len, parts)))

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, row: Any) -> Any:
    part = bisect.bisect_right(self._ends, row)
    begin = self._ends[part - 1] if part else 0
    return self._parts[part].place(row - begin)


def _value(value):
  """Returns a value, with bytes as text; a ValueError says what is wrong."""
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


def listed(names: Sequence[str]) -> str:
  """Returns names for a message, not all if they are many."""
  more = ", ..." if len(names) > _LISTED else ""
  return ", ".join(names[:_LISTED]) + more


def check_names(where: str, names: Sequence[str]) -> None:
  """Checks that all columns have names of their own.

  Raises:
    ValueError: two have the same, or differ in case alone; names them.
  """
  known: dict[str, str] = {}
  for name in names:
    other = known.get(name.casefold())
    if other == name:
      raise ValueError(
        f"{where}: a column is named twice, {name!r} among {listed(names)}"
      )
    if other is not None:
      raise ValueError(
        f"{where}: the columns {other!r} and {name!r} differ only in case;"
        " rename one"
      )
    known[name.casefold()] = name


def check_columns(
  where: str, columns: Iterable[str], names: Sequence[str], hint: str = ""
) -> None:
  """Checks that there are columns of these names.

  Raises:
    ValueError: some are missing; names them, those that are there, and the
      nearest.
  """
  there = list(columns)
  missing = [name for name in names if name not in there]
  if missing:
    raise ValueError(
      f"{where} has no column {' or '.join(missing)}, it has"
      f" {listed(there) or 'none'}"
      f"{choices.nearest(missing[0], there)}{hint and f'; {hint}'}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """What a reader returns: the tables of a source, and what it knows of them.

  Attributes:
    splits: tables by split, "train" among them.
    fingerprint: identifies content or version; `None` to hash the columns.
    names: all columns, where tables are not in memory.
    num_classes: number of classes.
    texts: columns of the texts to classify.
    label: column of the labels.
    pair: columns that a model reads and writes.
    class_names: names of the classes, by column of labels.
    features: names of the columns that made an array, in order.
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
  features: tuple[str, ...] = ()

  def names_of(self, label: str, num_classes: int) -> tuple[str, ...]:
    """Returns the names of the classes of a column of labels.

    None unless there is a different one for each class.
    """
    names = tuple(map(str, self.class_names.get(label, ())))
    return names if len(names) == len({*names}) == num_classes else ()
