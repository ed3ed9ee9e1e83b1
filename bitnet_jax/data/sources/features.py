"""Tables of numbers with a class for each row, from files of any kind."""

import hashlib
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from bitnet_jax.data import classes, splits
from bitnet_jax.data.sources import textfiles
from bitnet_jax.data.sources.tables import (
  Source,
  Table,
  check_columns,
  listed,
)

_SHOWN = 40  # characters of a value in a message


def read(
  pattern: str,
  cuts: splits.Cuts,
  read_file: Callable[[pathlib.Path, str, list[str]], Table],
  *,
  label: str,
  columns: Sequence[str] = (),
  num_classes: int | None = None,
) -> Source:
  """Reads one file of features per split.

  Args:
    pattern: of the files, see `textfiles.find_splits`.
    cuts: for names of splits.
    read_file: reads a file, given the column of the labels and the list for
      `choose`, into a table of "inputs", float32 [n, features], and "labels".
    label: column of the classes.
    columns: of the features; by default all others of "train".
    num_classes: number of classes; by default those of "train".

  Returns:
    Tables with the columns "inputs" and "labels", integers. The names of the
    classes are the labels of "train", sorted, as integers if they all are. The
    fingerprint is that of the values.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a file or one of its rows is wrong; names its place.
  """
  names = list(columns)
  source = textfiles.read_splits(
    pattern, cuts, lambda file: read_file(file, label, names)
  )
  tables = {k: t.read("inputs", "labels") for k, t in source.splits.items()}
  for table in tables.values():
    _check_finite(table, names)
  class_names = _class_names(pattern, tables["train"], label, num_classes)
  content = hashlib.sha256()
  found = {}
  for key, table in sorted(tables.items()):
    inputs = table.columns["inputs"]
    labels = classes.indices(table, "labels", class_names, said=label)
    found[key] = Table(
      columns={"inputs": inputs, "labels": labels}, name=table.name
    )
    content.update(f"{key} {inputs.shape}".encode())
    content.update(np.ascontiguousarray(inputs, "<f4").data)
    content.update(np.ascontiguousarray(labels, "<i4").data)
  return Source(
    splits={key: found[key] for key in tables},
    fingerprint=f"sha256:{content.hexdigest()}",
    num_classes=len(class_names),
    class_names={"labels": class_names},
    features=tuple(names),
  )


def choose(
  where: str, there: Sequence[str], label: str, names: list[str]
) -> None:
  """Chooses the columns of features, and checks that they are there.

  Args:
    where: names the file in messages.
    there: all columns of the file.
    label: column of the classes.
    names: of the features; if empty, filled with all columns but the label.

  Raises:
    ValueError: a column is not there, or there are no features.
  """
  check_columns(where, there, (label,), "data.label names that of the classes")
  if label in names:
    raise ValueError(f"data.columns has {label}, the column of the classes")
  check_columns(where, there, names, "data.columns names those of features")
  if not names:
    names.extend(name for name in there if name != label)
  if not names:
    raise ValueError(f"{where} has no column of features beside {label}")


def check_number(where: str, name: str, value: object) -> None:
  """Raises a ValueError that names a value which is no number."""
  try:
    float(value)  # type: ignore[arg-type]
    return
  except (OverflowError, TypeError, ValueError):
    pass
  if value in ("", None):
    reason = "is empty"
  else:
    reason = f"is {str(value)[:_SHOWN]!r}, which is no number"
  if isinstance(value, str) and value.count(",") == 1:
    reason += " (decimals need a point, not a comma)"
  raise ValueError(
    f"{where}: {name} {reason}; data.columns can name the columns of features"
  )


def _check_finite(table, names):
  """Raises a ValueError that names a NaN or infinite value."""
  inputs = table.columns["inputs"]
  finite = np.isfinite(inputs).all(axis=1)
  if not finite.all():
    row = int(np.argmin(finite))
    column = int(np.argmin(np.isfinite(inputs[row])))
    raise ValueError(
      f"{table.place(row)}: {names[column]} must be a finite number, it is"
      f" {inputs[row, column]} (as float32)"
    )


def _class_names(pattern, train, label, num_classes):
  """Returns the names of the classes."""
  labels = train.columns["labels"]
  names = classes.sorted_names(labels)
  numbers = [str(i) for i in range(num_classes or 0)]
  if {*names} <= {*numbers}:
    names = tuple(numbers)
  elif num_classes not in (None, len(names)):
    raise ValueError(
      f"data.num_classes is {num_classes}, but train has {len(names)} classes"
      f" in {label}: {listed(names)}"
    )
  if len(names) < 2:
    raise ValueError(
      f"file:{pattern}: {label} has only the class {listed(names)};"
      " there must be two at least"
    )
  if len(names) == len(labels) > 2:
    raise ValueError(
      f"file:{pattern}: each row has a class of its own in {label}; data.label"
      " names the column of the classes"
    )
  classes.warn(labels, f"file:{pattern}")
  return names
