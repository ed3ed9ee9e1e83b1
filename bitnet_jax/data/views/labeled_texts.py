"""Loads texts, or pairs of texts, with a class or a number each."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import logging

from bitnet_jax import choices
from bitnet_jax.data import classes, splits
from bitnet_jax.data.sources import registry
from bitnet_jax.data.splits import Dataset

_HINT = "data.label names the labels, data.column or data.columns the texts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabeledTexts(splits.Columns):
  """A split of texts with labels.

  Attributes:
    texts: one or two columns, each with n texts.
    labels: the class of each example, int32 [n], or a number, float32 [n].
  """

  texts: tuple[Sequence[str], ...]
  labels: np.ndarray


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  columns: Sequence[str] = (),
  label: str = "label",
  regression: bool = False,
  class_names: Sequence[str] = (),
) -> Dataset[LabeledTexts]:
  """Loads texts with labels; their fingerprint is that of their content.

  Hidden labels are written as -1. A split with only such labels is left out,
  which is logged, unless -1 is a label of "train".

  Args:
    source: `embedded:docstrings` (of Python's library, by module), `file:PATH`,
      where PATH ends in `.csv`, `.tsv`, `.jsonl` or `.parquet` (see
      `textfiles` for compressed files and `{split}`),
      `textgcn:FOLDER/NAME.clean` (see `textgcn.read`), or `tfds:NAME`, a
      prepared set.
    cuts: for names of splits, and for those that the source lacks.
    columns: of the texts, one or two; required for `file:`, and for `tfds:`
      except `glue/*`.
    label: column of the labels.
    regression: whether labels are numbers.
    class_names: of the classes in their order; by default those of the set,
      else the labels of "train", sorted, as integers if they all are.

  Raises:
    ValueError: an argument or something in the data is wrong; names the line.
  """
  choices.check(len(columns), (0, 1, 2), key="number of columns")
  if regression and class_names:
    raise ValueError("regression has no class_names")
  read, rest = registry.find("labeled texts", source)
  found = registry.read(read, rest, cuts)
  # A source with a label of its own has texts of its own.
  columns = found.texts if found.label else tuple(columns) or found.texts
  label = found.label or label
  if not columns:
    raise ValueError(f"{source} needs columns: where the texts stand")
  tables = {
    key: table.read(*columns, label, hint=_HINT)
    for key, table in found.splits.items()
  }
  if own_names := found.class_names.get(label, ()):
    tables = {k: _named(table, label, own_names) for k, table in tables.items()}
  names = tuple(class_names or own_names)
  tables = _without_hidden(source, tables, label, names)
  if not regression and not names:
    labels = tables["train"].columns[label]
    names = classes.sorted_names(labels)
    classes.warn(labels, source)
  examples = {
    key: LabeledTexts(
      texts=tuple(map(table.texts, columns)),
      labels=table.numbers(label)
      if regression
      else classes.indices(table, label, names),
    )
    for key, table in tables.items()
  }
  if regression:
    names = ()
  return splits.make_dataset(
    examples,
    cuts,
    source=source,
    num_classes=len(names),
    class_names=names,
    features=tuple(columns),
  )


def _named(table, label, names):
  """Returns a table with the names of classes in place of their numbers."""
  values = [int(value) for value in table.columns[label]]
  values = [names[value] if value >= 0 else value for value in values]
  return dataclasses.replace(table, columns={**table.columns, label: values})


def _without_hidden(source, tables, label, class_names):
  """Returns the splits with labels; unpublished labels are -1."""
  if any(map(_is_hidden, class_names)):
    return tables
  hidden = {
    k: sum(map(_is_hidden, t.columns[label])) for k, t in tables.items()
  }
  if hidden["train"] and hidden["train"] == len(tables["train"]):
    raise ValueError(f"{source}: train has no labels, they all are -1")
  if hidden["train"]:  # where -1 is a label as others are
    return tables
  labeled = {}
  for key, table in tables.items():
    if hidden[key] and hidden[key] == len(table):
      logging.info("Left %s of %s out: it has no labels", key, source)
      continue
    if hidden[key]:
      logging.warning(
        "%d of %d labels in %s of %s are -1, which marks unknown labels; train"
        " has none of these",
        hidden[key],
        len(table),
        key,
        source,
      )
    labeled[key] = table
  return labeled


def _is_hidden(value) -> bool:
  """Whether a label is -1, as a number or written out."""
  try:
    return float(value) == -1
  except (TypeError, ValueError):
    return False
