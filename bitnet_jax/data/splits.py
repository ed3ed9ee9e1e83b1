"""Data sets: their splits, labels and fingerprints, and stratified cuts."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Self, TypeVar

import numpy as np
from absl import logging

# The most classes that a label may imply, and so outputs of a model.
MOST_CLASSES = 2**20
_LISTED = 10  # classes in a message

NAMES = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cuts:
  """How missing splits of a data set are cut from its training split.

  Splits of the source are used as they are. A missing "test" is cut from
  "train" first, then a missing "valid" from the rest. Cuts are stratified by
  class and keep the order of the source and at least one training example of
  each class (see `cut`). The draws depend on `split_seed` only, and the draw of
  "test" does not depend on `valid_fraction`.

  Attributes:
    valid_fraction: fraction of the training examples for "valid" if the source
      lacks it, 0 for none.
    test_fraction: fraction of them for "test" if the source lacks it, 0 for
      none.
    split_seed: seed of the cuts, not negative.
    split_names: (our name, its name) pairs for splits with unusual names, such
      as (("test", "test_2016_flickr"),).
    data_dir: folder of prepared data sets, used by `tfds:` only.
  """

  valid_fraction: float = 0.0
  test_fraction: float = 0.0
  split_seed: int = 0
  split_names: tuple[tuple[str, str], ...] = ()
  data_dir: str | None = None

  def __post_init__(self):
    for name in ("valid_fraction", "test_fraction"):
      fraction = getattr(self, name)
      if not 0 <= fraction < 1:
        raise ValueError(f"{name} must be in [0, 1), it is {fraction!r}")
    if self.split_seed < 0:
      raise ValueError(
        f"split_seed must not be negative, it is {self.split_seed}"
      )


NO_CUTS = Cuts()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
  """The examples of a split in memory: a base of dataclasses of columns.

  Each field is a column (an array or a list with one entry per example), or a
  tuple of columns. The last field is a column.
  """

  def columns(self) -> Iterator[Any]:
    """Yields the columns in their order."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      yield from value if isinstance(value, tuple) else (value,)

  @property
  def classes(self) -> np.ndarray:
    """The strata of cuts, [n]: integer labels, else zeros."""
    labels = getattr(self, "labels", None)
    if labels is None or labels.dtype.kind not in "iu":
      return np.zeros(len(self), np.int32)
    return labels

  def take(self, rows: np.ndarray) -> Self:
    """Returns the examples where `rows`, bool [n], is true, in their order."""
    taken: dict[str, Any] = {}
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      taken[field.name] = (
        tuple(_take(column, rows) for column in value)
        if isinstance(value, tuple)
        else _take(value, rows)
      )
    return type(self)(**taken)

  def __len__(self) -> int:
    return len(getattr(self, dataclasses.fields(self)[-1].name))


def _take(column, rows):
  if isinstance(column, np.ndarray):
    return column[rows]
  return list(itertools.compress(column, rows))


T = TypeVar("T", bound=Columns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split(Columns):
  """Arrays and their labels.

  Attributes:
    inputs: uint8 or float32 array [n, *shape], one example a row.
    labels: int32 array [n], the class of each example.
  """

  inputs: np.ndarray
  labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset(Generic[T]):
  """A data set in memory.

  Attributes:
    splits: by name, among "train", "valid" and "test"; "train" is always there.
    fingerprint: identifies the data by content or version, never by location.
    num_classes: labels are in [0, num_classes); 0 where there are no classes.
    class_names: names of the classes, empty if the source has none.
  """

  splits: dict[str, T]
  fingerprint: str
  num_classes: int = 0
  class_names: tuple[str, ...] = ()


def digest(texts: Iterable[str]) -> str:
  """Returns a hash, in hex digits, of texts and their boundaries."""
  content = hashlib.sha256()
  for text in texts:
    data = text.encode()
    content.update(len(data).to_bytes(8, "little"))
    content.update(data)
  return content.hexdigest()


def _fingerprint(splits):
  """Returns a fingerprint of columns of texts and numbers, by split."""
  digests = []
  for key in sorted(splits):
    digests.append(key)
    for column in splits[key].columns():
      is_array = isinstance(column, np.ndarray)
      digests.append(digest(map(repr, column.tolist()) if is_array else column))
  return f"sha256:{digest(digests)}"


def count_classes(labels: np.ndarray) -> int:
  """Returns the largest label + 1, at most `MOST_CLASSES`."""
  return min(int(labels.max()) + 1, MOST_CLASSES)


def check_labels(
  labels: np.ndarray, *, num_classes: int, where: str
) -> np.ndarray:
  """Returns labels as int32 after checking that each names a class.

  Args:
    labels: any integer array [n].
    num_classes: labels must be in [0, num_classes).
    where: the source and field, for the message.

  Raises:
    ValueError: a label is out of range; names it and its example.
  """
  bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if bad.size:
    raise ValueError(
      f"{where} holds the label {labels[bad[0]]} at example {bad[0]}, but"
      f" labels must be in 0..{num_classes - 1} (num_classes={num_classes})"
    )
  return labels.astype(np.int32)


def warn_of_absent(labels: np.ndarray, *, num_classes: int, where: str) -> None:
  """Logs which classes never occur in the training examples.

  Args:
    labels: their labels, in [0, num_classes).
    num_classes: number of classes.
    where: name of the data.
  """
  present = {*np.unique(labels).tolist()}
  absent = [str(i) for i in range(num_classes) if i not in present]
  if not absent:
    return
  logging.warning(
    "%s: %d of %d classes never occur in train: %s%s",
    where,
    len(absent),
    num_classes,
    ", ".join(absent[:_LISTED] + ["..."] * (len(absent) > _LISTED)),
    "; labels begin at 1, but classes are numbered from 0"
    if min(present) == 1
    else "",
  )


def cut(split: T, *, fraction: float, seed: int) -> tuple[T, T]:
  """Splits off a random fraction of examples, stratified by class.

  The cut has `round(fraction * n)` examples. Each class contributes its
  fraction rounded down, and classes with the largest remainders one more until
  the number is reached; ties are broken at random. No class contributes its
  last example, so a cut from many tiny classes can be smaller. Both results
  keep the order of the examples, and depend on the classes, the fraction and
  the seed only.

  Args:
    split: examples and their classes.
    fraction: fraction to split off, in [0, 1).
    seed: non-negative seed of the draw.

  Returns:
    The rest of the split, and the cut; one of them can be empty only if the
    fraction rounds to zero examples.
  """
  rng = np.random.default_rng(seed)
  _, classes, counts = np.unique(
    split.classes, return_inverse=True, return_counts=True
  )
  parts = fraction * counts
  given = np.floor(parts).astype(np.int64)
  missing = round(fraction * len(classes)) - given.sum()
  by_remainder = np.lexsort((rng.random(len(counts)), given - parts))
  given[by_remainder[: max(missing, 0)]] += 1
  given = np.minimum(given, counts - 1)

  shuffled = rng.permutation(len(classes))
  grouped = shuffled[np.argsort(classes[shuffled], kind="stable")]
  first = np.cumsum(counts) - counts  # where each class starts in `grouped`
  rank = np.arange(len(classes)) - np.repeat(first, counts)
  off = np.zeros(len(classes), bool)
  off[grouped] = rank < np.repeat(given, counts)
  return split.take(~off), split.take(off)


def make_dataset(
  found: dict[str, T],
  cuts: Cuts,
  *,
  source: str,
  fingerprint: str | None = None,
  num_classes: int = 0,
  class_names: tuple[str, ...] = (),
  cut: Callable[..., tuple[T, T]] = cut,
) -> Dataset[T]:
  """Makes a data set from the splits of a source, and cuts missing ones.

  Args:
    found: splits by name, including "train".
    cuts: how to cut missing splits.
    source: name of the data, for messages.
    fingerprint: fingerprint of the data; by default that of all columns.
    num_classes: see `Dataset`. Classes missing in "train" log a warning.
    class_names: see `Dataset`.
    cut: function with the arguments of `cut`.

  Raises:
    ValueError: a split is empty, or a cut would be.
  """
  for key, split in found.items():
    if not len(split):
      raise ValueError(f"{source}: {key} has no example")
  completed = _complete(found, cuts, source, cut)
  if num_classes:
    warn_of_absent(
      completed["train"].classes, num_classes=num_classes, where=source
    )
  return Dataset(
    splits=completed,
    fingerprint=fingerprint or _fingerprint(completed),
    num_classes=num_classes,
    class_names=class_names,
  )


def _complete(found, cuts, source, cut):
  """Returns all splits; missing ones are cut from "train"."""
  splits = dict(found)
  # Two seeds, so that the draws for "test" and "valid" are unrelated.
  for seed, key, fraction in (
    (2 * cuts.split_seed, "test", cuts.test_fraction),
    (2 * cuts.split_seed + 1, "valid", cuts.valid_fraction),
  ):
    if key in splits or fraction == 0:
      continue
    total = len(splits["train"])
    splits["train"], splits[key] = cut(
      splits["train"], fraction=fraction, seed=seed
    )
    if not len(splits[key]):
      raise ValueError(
        f"{source}: {key}_fraction={fraction!r} of {total} training examples"
        f" leaves no example for {key}"
      )
  return splits
