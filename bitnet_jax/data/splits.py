"""Data sets: their splits, labels and fingerprints, and stratified cuts."""

import abc
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

import numpy as np
from absl import logging

from bitnet_jax.data.picture_array import PictureArray

# Bounds the labels: a label of 900,000,000 must not make as many outputs.
MOST_CLASSES = 2**20
_LISTED = 10  # classes in a message
_LIMIT = 2**40  # the first seed of `limit`

NAMES = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cuts:
  """How missing splits of a data set are cut from its training split.

  Splits of the source are used as they are. A missing "test" is cut from
  "train" first, then a missing "valid" from the rest: stratified by class, in
  the order of the source, with at least one training example left of each class
  (see `cut`). The draws depend on `split_seed` only, and that of "test" does
  not depend on `valid_fraction`.

  Attributes:
    valid_fraction: fraction of the training examples for "valid" if the source
      lacks it, 0 for none.
    test_fraction: likewise for "test".
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
  """Base of the splits in memory: a dataclass whose fields are columns.

  A column is an array or a list with one entry for each example; a field may
  also be a tuple of columns, but not the last one.
  """

  def columns(self) -> Iterator[Any]:
    """Yields the columns in their order."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      yield from value if isinstance(value, tuple) else (value,)

  @property
  def classes(self) -> np.ndarray:
    """The strata of cuts, [n]: the labels if they are integers, else zeros."""
    labels = getattr(self, "labels", None)
    if labels is None or labels.dtype.kind not in "iu":
      return np.zeros(len(self), np.int32)
    return labels

  def take(self, rows: np.ndarray) -> Self:
    """Returns the examples where `rows`, bool [n], is true."""
    names = [field.name for field in dataclasses.fields(self)]
    return type(self)(**{n: _take(getattr(self, n), rows) for n in names})

  def __len__(self) -> int:
    return len(getattr(self, dataclasses.fields(self)[-1].name))


class OnDisk(Sequence[Any], abc.ABC):
  """A column whose values are read from files when they are needed."""

  @abc.abstractmethod
  def select(self, rows: Sequence[int] | np.ndarray) -> "OnDisk":
    """Returns the column of the rows with these indices."""


def _take(column, rows) -> Any:
  if isinstance(column, tuple):
    return tuple(_take(inner, rows) for inner in column)
  if isinstance(column, OnDisk):
    return column.select(np.flatnonzero(rows))
  if isinstance(column, np.ndarray):
    return column[rows]
  if isinstance(column, PictureArray):
    return column.take(rows)
  return list(itertools.compress(column, rows))


T = TypeVar("T", bound=Columns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split(Columns):
  """A split of arrays with labels.

  Attributes:
    inputs: uint8 or float32 array [n, *shape], or pictures that are read when
      they are indexed.
    labels: int32 array [n], the class of each example.
  """

  inputs: np.ndarray | PictureArray
  labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset(Generic[T]):
  """A data set in memory.

  Attributes:
    splits: by name, among "train", "valid" and "test"; "train" is always there.
    fingerprint: identifies the data by content or version, never by its place.
    num_classes: labels are in [0, num_classes); 0 where there are no classes.
    class_names: names of the classes, empty if the source has none.
    features: names of the columns that make an input, likewise.
  """

  splits: dict[str, T]
  fingerprint: str
  num_classes: int = 0
  class_names: tuple[str, ...] = ()
  features: tuple[str, ...] = ()


def digest(texts: Iterable[str]) -> str:
  """Returns a hash, in hex digits, of texts and of where each one ends."""
  content = hashlib.sha256()
  for text in texts:
    data = text.encode()
    content.update(len(data).to_bytes(8, "little"))
    content.update(data)
  return content.hexdigest()


def _fingerprint(splits):
  """Identifies all splits by the content of their columns."""
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
  """Returns integer labels [n] as int32.

  Raises:
    ValueError: a label is not in [0, num_classes); names `where` and example.
  """
  bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if bad.size:
    raise ValueError(
      f"{where} holds the label {labels[bad[0]]} at example {bad[0]}, but"
      f" labels must be in 0..{num_classes - 1} (num_classes={num_classes})"
    )
  return labels.astype(np.int32)


def warn_of_absent(labels: np.ndarray, *, num_classes: int, where: str) -> None:
  """Logs which of the classes do not occur among the training labels."""
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
  """Splits examples at random in two, with the same fraction of each class.

  The second part has `round(fraction * n)` examples. Each class gives the floor
  of its fraction, and the classes with the largest remainders give one more
  until the number is reached; ties are broken at random. No class gives its
  last example, so a split of many tiny classes can give fewer. Both parts keep
  the order of the examples, and depend on the classes, the fraction and the
  seed only.

  Args:
    split: the examples.
    fraction: of the second part, in [0, 1).
    seed: non-negative seed of the draw.

  Returns:
    The rest and the part that was cut off.
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
  cut: Callable[..., tuple[T, T]] = cut,
  fingerprint: str | None = None,
  **classes: Any,
) -> Dataset[T]:
  """Returns the data set of the splits that a source has.

  Missing splits are cut from "train", and classes that it lacks are a warning.

  Args:
    found: splits by name, "train" among them.
    cuts: what is cut.
    source: names the data in messages.
    cut: makes a cut, with the arguments of `cut`.
    fingerprint: of the source; by default that of the columns of all splits.
    **classes: `num_classes`, `class_names` and `features` of `Dataset`.

  Raises:
    ValueError: a split is empty, or a cut would be.
  """
  for key, split in found.items():
    if not len(split):
      raise ValueError(f"{source}: {key} has no example")
  splits = dict(found)
  # Two seeds, so that the draws for "test" and "valid" are unrelated.
  for seed, key, fraction in (
    (2 * cuts.split_seed, "test", cuts.test_fraction),
    (2 * cuts.split_seed + 1, "valid", cuts.valid_fraction),
  ):
    if key in splits or fraction == 0:
      continue
    train = splits["train"]
    splits["train"], splits[key] = cut(train, fraction=fraction, seed=seed)
    if not len(splits[key]):
      raise ValueError(
        f"{source}: {key}_fraction={fraction!r} of {len(train)} training"
        f" examples leaves no example for {key}"
      )
  fingerprint = fingerprint or _fingerprint(splits)
  dataset = Dataset(splits=splits, fingerprint=fingerprint, **classes)
  warn_of_absent(
    splits["train"].classes, num_classes=dataset.num_classes, where=source
  )
  return dataset


def limit(
  dataset: Dataset[T], train_examples: int, *, seed: int, source: str
) -> Dataset[T]:
  """Returns a data set with fewer training examples, see `cut`.

  The examples that remain depend on the training split, their number and the
  seed only. Other splits stay as they are.

  Args:
    dataset: the data set.
    train_examples: number of training examples, positive.
    seed: non-negative seed of the draw.
    source: names the data in messages.

  Raises:
    ValueError: the data set has fewer training examples.
  """
  train = dataset.splits["train"]
  if train_examples > len(train):
    raise ValueError(
      f"data.train_examples is {train_examples}, but {source} has"
      f" {len(train)} training examples"
    )
  if train_examples == len(train):
    return dataset
  # Not a seed of `make_dataset`, so that the draws are unrelated.
  fraction, seed = train_examples / len(train), _LIMIT + seed
  _, rest = cut(train, fraction=fraction, seed=seed)
  return dataclasses.replace(dataset, splits=dataset.splits | {"train": rest})
