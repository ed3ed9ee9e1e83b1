"""Reads Parquet files through pyarrow: columns of texts, or features."""

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax import files
from bitnet_jax.data import splits
from bitnet_jax.data.sources import features, textfiles
from bitnet_jax.data.sources.tables import Source, Table, check_names
from bitnet_jax.extras import needed_by

# Most bytes of what is read, and rows: these numbers, or these multiples of the
# size of the file. A value that repeats takes next to no space in it.
ALWAYS_UNPACKED, MOST_GROWTH = 2**26, 1000
ALWAYS_ROWS, MOST_ROWS = 2**22, 1000
_ROWS = 2**12  # that are read at a time
_INDEX = re.compile("__index_level_[0-9]+__")  # of pandas


def read(pattern: str, cuts: splits.Cuts) -> Source:
  """Opens one Parquet file per split; columns are read when they are needed.

  Raises:
    FileNotFoundError: there is no such file.
    MissingExtraError: pyarrow is not installed.
    ValueError: a file is damaged or beyond the limits above, or, later, has a
      value that is missing, or a column that holds neither texts nor numbers.
  """
  return textfiles.read_splits(pattern, cuts, _read)


def read_features(pattern: str, cuts: splits.Cuts, **options: Any) -> Source:
  """Reads one Parquet file of numbers and classes per split.

  See `features.read` for the options, and `read` for the errors.
  """
  return features.read(pattern, cuts, _read_features, **options)


def _read(file: pathlib.Path) -> Table:
  """Opens the table of one file."""
  columns = _Columns(file)
  rows = range(1, columns.rows + 1)
  return Table(columns=columns, name=str(file), unit="row", places=rows)


class _Columns(Mapping[str, list[Any]]):
  """The columns of a file by name, which are read when they are asked for."""

  def __init__(self, file: pathlib.Path):
    self.file = file
    self.types, self.rows = _types(file)

  def __len__(self) -> int:
    return len(self.types)

  def __iter__(self) -> Iterator[str]:
    return iter(self.types)

  def __contains__(self, name: object) -> bool:
    return name in self.types

  def __getitem__(self, name: str) -> list[Any]:
    if name not in self.types:
      raise KeyError(name)
    _check_type(self.file, name, self.types[name])
    found: list[Any] = []
    for batch in _batches(self.file, [name]):
      found += _values(self.file, name, batch.column(0), first=len(found) + 1)
    return found


def _read_features(file: pathlib.Path, label: str, names: list[str]) -> Table:
  """Reads the features of one file; see `features.read`."""
  types, _ = _types(file)
  features.choose(str(file), list(types), label, names)
  _check_type(file, label, types[label])
  for name in names:
    _check_type(file, name, types[name], numbers=True)
  parts, labels = [np.empty((0, len(names)), np.float32)], []
  for batch in _batches(file, [*names, label]):
    first = len(labels) + 1
    part = np.empty((len(batch), len(names)), np.float32)
    for i, name in enumerate(names):
      column = batch.column(name)
      _check_complete(file, name, column, first=first)
      with np.errstate(over="ignore"):  # what overflows is found later
        part[:, i] = column.to_numpy(zero_copy_only=False)
    parts.append(part)
    labels += _values(file, label, batch.column(label), first=first)
  columns = {"inputs": np.concatenate(parts), "labels": labels}
  return Table(columns=columns, name=str(file), unit="row")


def _types(file: pathlib.Path) -> tuple[dict[str, Any], int]:
  """Returns the types of the columns by name, and the number of rows."""
  with needed_by(f"file:{file}", "pyarrow", extra="hf"):
    import pyarrow.parquet
  try:
    with files.open_regular(file, most=textfiles.LARGEST_TEXT) as stream:
      size = stream.seek(0, 2)
      stream.seek(0)
      found = pyarrow.parquet.ParquetFile(stream)
      schema, rows = found.schema_arrow, found.metadata.num_rows
  except _errors() as error:
    raise _unreadable(file, error) from error
  if not 0 < rows <= max(ALWAYS_ROWS, MOST_ROWS * size):
    reason = f"says to have {rows}, too many for its size" if rows else "has no"
    raise ValueError(f"{file} {reason} rows")
  check_names(str(file), schema.names)
  types = zip(schema.names, schema.types, strict=True)
  types = {name: kind for name, kind in types if not _INDEX.fullmatch(name)}
  return types, rows


def _batches(file: pathlib.Path, names: Sequence[str]) -> Iterator[Any]:
  """Yields columns of a file as batches of Arrow."""
  import pyarrow.parquet

  try:
    with files.open_regular(file, most=textfiles.LARGEST_TEXT) as stream:
      size = stream.seek(0, 2)
      stream.seek(0)
      unpacked = rows = 0
      found = pyarrow.parquet.ParquetFile(
        stream, page_checksum_verification=True
      )
      for batch in found.iter_batches(_ROWS, columns=names, use_threads=False):
        unpacked, rows = unpacked + batch.nbytes, rows + len(batch)
        files.check_unpacked(
          unpacked, most=max(ALWAYS_UNPACKED, MOST_GROWTH * size)
        )
        yield batch
      if rows != found.metadata.num_rows:
        raise ValueError(
          f"{' and '.join(names)} has {rows} of {found.metadata.num_rows} rows"
        )
  except _errors() as error:
    raise _unreadable(file, error) from error


def _errors() -> tuple[type[Exception], ...]:
  """Returns the errors of pyarrow for damaged files."""
  import pyarrow

  return (
    ArithmeticError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    pyarrow.ArrowException,
  )


def _unreadable(file, error):
  # A MemoryError says nothing, and Arrow several lines.
  reason = " ".join(str(error).split()) or repr(error)
  return ValueError(f"cannot read {file} as Parquet: {reason:.200}")


def _check_type(file, name, kind, *, numbers=False) -> None:
  """Raises a ValueError unless a column has texts, integers or numbers."""
  from pyarrow import types

  inner = kind.value_type if types.is_dictionary(kind) else kind
  is_text = [types.is_string, types.is_large_string, types.is_string_view]
  is_text += [types.is_binary, types.is_large_binary, types.is_binary_view]
  is_number = [types.is_integer, types.is_floating, types.is_boolean]
  taken = is_number if numbers else is_text + is_number
  if types.is_null(inner) or any(check(inner) for check in taken):
    return
  hint = "; data.columns can name the columns of features" if numbers else ""
  raise ValueError(
    f"{file}: {name} holds {kind}, not {'' if numbers else 'texts or '}numbers"
    f"{hint}"
  )


def _check_complete(file, name, column, *, first) -> None:
  """Raises a ValueError that names the row of a missing value."""
  if column.null_count:
    row = first + int(
      np.argmax(column.is_null().to_numpy(zero_copy_only=False))
    )
    raise ValueError(f"{file}, row {row}: {name} is missing (null)")


def _values(file, name, column, *, first) -> list[Any]:
  """Returns the values of a part of a column, with bytes as texts."""
  _check_complete(file, name, column, first=first)
  try:
    values = column.to_pylist()
    return [v.decode() if isinstance(v, bytes) else v for v in values]
  except UnicodeDecodeError as error:
    raise ValueError(
      f"{file}, rows {first} to {first + len(column) - 1}: {name} is not UTF-8:"
      f" {error}"
    ) from error
