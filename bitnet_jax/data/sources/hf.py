"""Reads data sets of the library `datasets`: texts, pairs, pictures, labels.

Values stay in files of Arrow, which are mapped into memory and read in parts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax.data import splits
from bitnet_jax.data.sources import hf_sets
from bitnet_jax.data.sources.tables import Source, Table

_ROWS = 1000  # that are read at a time


def read(name: str, cuts: splits.Cuts) -> Source:
  """Opens all splits of a set; see `hf_sets.open_set` for the arguments.

  The fields of a nested column, such as the languages of "translation", are
  columns of their own, under their own names.

  Returns:
    Tables whose columns are read lazily. The pair are the languages of a
    translation; the only column of texts are the texts.
  """
  found = hf_sets.open_set(name, cuts)
  columns = {key: _Columns(_flat(dataset)) for key, dataset in found.items()}
  train = columns["train"]
  texts = tuple(key for key, f in train.features.items() if _is_text(f))
  return Source(
    splits={key: _table(name, key, own) for key, own in columns.items()},
    names=tuple(train),
    texts=texts if len(texts) == 1 else (),
    pair=_languages(found["train"]),
    class_names=_class_names(name, columns),
  )


def read_documents(name: str, cuts: splits.Cuts) -> Source:
  """Opens a set as `read` does, without saying where the texts stand."""
  found = read(name, cuts)
  return Source(splits=found.splits, names=found.names)


class Column(splits.OnDisk):
  """A column of a `datasets.Dataset`, which is read in parts."""

  def __init__(self, dataset: Any, name: str):
    self._dataset = dataset.select_columns([name]).with_format("arrow")
    self._name = name

  def __len__(self) -> int:
    return len(self._dataset)

  def __iter__(self) -> Iterator[Any]:
    for part in self._dataset.iter(_ROWS):
      yield from part.column(0).to_pylist()

  def __getitem__(self, row: Any) -> Any:
    (value,) = self._dataset[range(len(self))[row]].column(0).to_pylist()
    return value

  def select(self, rows: Sequence[int] | np.ndarray) -> "Column":
    """See `splits.OnDisk`."""
    return Column(self._dataset.select(rows), self._name)


class _Columns(Mapping[str, Any]):
  """The columns of a flat `datasets.Dataset` by name."""

  def __init__(self, dataset):
    self._dataset = dataset
    self.features = dataset.features

  def __len__(self) -> int:
    return len(self.features)

  def __iter__(self) -> Iterator[str]:
    return iter(self.features)

  def __contains__(self, name: object) -> bool:
    return name in self.features

  def __getitem__(self, name: str) -> Sequence[Any]:
    column = Column(self._dataset, name)
    if not hasattr(self.features[name], "names"):
      return column
    # What has no class is -1, as on the hub.
    return [-1 if value is None else value for value in column]


def _table(name, split, columns):
  return Table(columns=columns, name=f"hf:{name} {split}", first=0, unit="row")


def _flat(dataset):
  """Returns a set in which the fields of nested columns are columns."""
  flat = dataset.flatten()
  shorter = {name: name.rpartition(".")[2] for name in flat.column_names}
  # Of fields with one name each keeps its long one.
  known = [*shorter.values()]
  renamed = {k: v for k, v in shorter.items() if k != v and known.count(v) == 1}
  return flat.rename_columns(renamed)


def _languages(dataset) -> tuple[str, ...]:
  """Returns the languages of the only translation of a set."""
  found = [
    tuple(feature.languages)
    for feature in dataset.features.values()
    if type(feature).__name__ == "Translation"
  ]
  return found[0] if len(found) == 1 and len(found[0]) == 2 else ()


def _is_text(feature) -> bool:
  return getattr(feature, "dtype", None) in ("string", "large_string")


def _class_names(name, columns: Mapping[str, _Columns]):
  """Returns the names of classes by column; the splits must agree."""
  found = {
    split: {
      key: tuple(feature.names)
      for key, feature in own.features.items()
      if hasattr(feature, "names")
    }
    for split, own in columns.items()
  }
  for split, names in found.items():
    for key, own in names.items():
      first = found["train"].get(key, own)
      if own != first:
        raise ValueError(
          f"hf:{name}: {key} has the classes {', '.join(first)} in train, but"
          f" {', '.join(own)} in {split}"
        )
  return found["train"]
