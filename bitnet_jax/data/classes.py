"""Classes of labels: their names in order, and the class of each example."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from absl import logging

from bitnet_jax.data.sources.tables import Table, listed


def sorted_names(labels: Iterable[object]) -> tuple[str, ...]:
  """Returns the different labels in order: as integers if they all are."""
  names = {name for label in labels if (name := _name(label))}
  if all(re.fullmatch("-?[0-9]{1,18}", name) for name in names):
    return tuple(sorted(names, key=lambda name: (int(name), name)))
  return tuple(sorted(names))


def indices(
  table: Table, label: str, names: Sequence[str], *, said: str = ""
) -> np.ndarray:
  """Returns the class of each row, int32 [n].

  Args:
    table: has the labels.
    label: column of the labels.
    names: of the classes, in their order.
    said: what messages call the column; by default its name.

  Raises:
    ValueError: a label is no class; names its place and the classes.
  """
  index: Mapping[str | None, int] = {name: i for i, name in enumerate(names)}
  found = np.empty(len(table), np.int32)
  for row, value in enumerate(table.columns[label]):
    place = index.get(_name(value))
    if place is None:
      raise ValueError(
        f"{table.place(row)}: {said or label} is {value!r}, which is none of"
        f" the classes {listed(names)}"
      )
    found[row] = place
  return found


def warn(labels: Iterable[object], where: str) -> None:
  """Logs classes that look like typing errors, and those of one example.

  Args:
    labels: of the training examples.
    where: names the data in the message.
  """
  found = (_name(label) for label in labels)
  counts = collections.Counter(name for name in found if name)
  alike = collections.defaultdict(list)
  for name in counts:
    alike[name.strip().casefold()].append(name)
  for names in alike.values():
    if len(names) > 1:
      logging.warning(
        "%s: the classes %s differ only in case or in spaces around them; give"
        " them one spelling unless you want %d classes",
        where,
        " and ".join(map(repr, sorted(names))),
        len(names),
      )
  single = [name for name, count in counts.items() if count == 1]
  if single:
    logging.warning(
      "%s: %d of %d classes have one training example: %s",
      where,
      len(single),
      len(counts),
      listed(single),
    )


def _name(label):
  """Returns the name of a class: a text, or an integer or truth of JSON."""
  if isinstance(label, str):
    return label or None
  return str(label) if isinstance(label, int | np.integer) else None
