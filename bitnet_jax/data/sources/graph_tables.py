"""The CSV tables of graphs: their files, ids, splits, classes and numbers."""

import array
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from bitnet_jax import choices
from bitnet_jax.data import classes, splits
from bitnet_jax.data.sources import csvfiles
from bitnet_jax.data.sources.tables import Table, check_columns, listed

_ENDINGS = (".csv", ".csv.gz", ".csv.xz")
# Our splits as a column "split" may name them.
_SPLITS = {
  "train": "train",
  "valid": "valid",
  "val": "valid",
  "validation": "valid",
  "dev": "valid",
  "test": "test",
}


def find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
  """Returns the file of a table, if there is one."""
  files = [folder / f"{name}{ending}" for ending in _ENDINGS]
  found = [file for file in files if file.is_file()]
  if len(found) > 1:
    raise ValueError(f"{folder} has {found[0].name} and {found[1].name}")
  return found[0] if found else None


def need(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the file of a table; a FileNotFoundError if there is none."""
  file = find(folder, name)
  if file is None:
    raise FileNotFoundError(f"{folder} has no {name}.csv")
  return file


def read(
  file: pathlib.Path,
  needed: Sequence[str],
  optional: Sequence[str],
  *,
  numbers: bool = False,
) -> tuple[Table, np.ndarray]:
  """Reads a table.

  Args:
    file: of the table.
    needed: columns of texts, without spaces around them.
    optional: more of them, which may be missing.
    numbers: whether the other columns are features.

  Returns:
    The columns of texts, and the features, float32 [n, d].

  Raises:
    ValueError: a column is missing, or a row is wrong; names the line.
  """
  header, rows = csvfiles.open_table(file)
  check_columns(str(file), [name for name in header if name], needed)
  names = [name for name in (*needed, *optional) if name in header]
  others = [name for name in header if name and name not in names]
  if others and not numbers:
    logging.warning("%s: these columns are not used: %s", file, listed(others))
    others = []
  texts: dict[str, list[str]] = {name: [] for name in names}
  values, places = array.array("f"), array.array("q")
  of_texts = [(texts[name], header.index(name)) for name in names]
  of_values = [header.index(name) for name in others]
  for row in rows:
    places.append(row.line)
    for column, i in of_texts:
      column.append(row.fields[i].strip())
    try:
      values.extend([float(row.fields[i]) for i in of_values])
    except (OverflowError, ValueError):
      _refuse(file, row, header, of_values)
  features = np.array(values, np.float32).reshape(len(places), len(others))
  bad = np.argwhere(~np.isfinite(features))
  if len(bad):
    row, column = bad[0]
    raise ValueError(
      f"{file}, line {places[row]}: {others[column]} must be a finite number,"
      f" it is {features[row, column]} (as float32)"
    )
  return Table(columns=texts, name=str(file), places=places), features


def _refuse(file, row, header, columns):
  """Raises a ValueError that names the feature which is no number."""
  for i in columns:
    try:
      float(row.fields[i])
    except ValueError as error:
      raise ValueError(
        f"{file}, line {row.line}: {header[i]} is {row.fields[i][:40]!r}, but"
        " features must be numbers; a category needs a column of 0 and 1 for"
        " each of its values"
      ) from error


def rows_by_id(
  table: Table, owner: Sequence[int]
) -> dict[tuple[int, str], int]:
  """Returns the row of each id, by the number of its graph and by the id.

  Raises:
    ValueError: an id is empty, or comes twice in a graph; names the line.
  """
  rows: dict[tuple[int, str], int] = {}
  for row, key in enumerate(zip(owner, table.columns["id"], strict=True)):
    if not key[1]:
      raise ValueError(f"{table.place(row)}: id is empty")
    first = rows.setdefault(key, row)
    if first != row:
      raise ValueError(
        f"{table.place(row)}: the id {key[1]!r} is in line"
        f" {table.number(first)} already"
      )
  return rows


def split_rows(table: Table) -> dict[str, list[int]]:
  """Returns the rows of each split; none without a column "split".

  Raises:
    ValueError: a split has another name, or "train" has no row.
  """
  found: dict[str, list[int]] = {}
  for row, value in enumerate(table.columns.get("split", ())):
    if value:
      place = f"{table.place(row)}: split"
      found.setdefault(choices.pick(_SPLITS, value, key=place), []).append(row)
  if found and "train" not in found:
    raise ValueError(f"{table.name}: no row has the split train")
  return {key: found[key] for key in splits.NAMES if key in found}


def class_names(where: str, labels: Sequence[str]) -> tuple[str, ...]:
  """Returns the names of the classes; a ValueError if there are less than two.

  Empty labels are of no class.
  """
  names = classes.sorted_names(labels)
  if len(names) < 2:
    raise ValueError(
      f"{where}: label has {f'only the class {names[0]}' if names else 'none'};"
      " there must be two classes at least"
    )
  classes.warn([label for label in labels if label], where)
  return names
