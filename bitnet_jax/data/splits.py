"""The splits of a data set, their labels, and stratified cuts from them."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import numpy as np
from absl import logging

# That labels count: a label of 900,000,000 is no reason for as many outputs.
MOST_CLASSES = 2**20
_LISTED = 10  # classes in a message


NAMES = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cuts:
  """Where the splits of a data set come from.

  Splits that the source has are used as they are. A missing "test" is cut from
  "train" first, then a missing "valid" from what is left: stratified by class,
  in the order of the source, every class keeping at least one training example
  (see `cut`). The draws depend on `split_seed` and on nothing else that is
  random, and that of "test" does not depend on `valid_fraction`.

  Attributes:
    valid_fraction: fraction of the training examples for "valid" if the source
      lacks it, 0 for none.
    test_fraction: fraction of them for "test" if the source lacks it, 0 for
      none.
    split_seed: seed of the cuts, not negative.
    split_names: (our name, its name) pairs, where the source does not use one
      of the usual names, as (("test", "test_2016_flickr"),).
    data_dir: folder of prepared sets, read by `tfds:` only.
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


class Examples(Protocol):
  """Examples that can be cut in two."""

  @property
  def classes(self) -> np.ndarray:
    """Not negative integers [n]: a cut takes the same share of each class."""
    ...

  def take(self, rows: np.ndarray) -> Self:
    """Returns the examples where `rows`, bool [n], is true, in their order."""
    ...

  def __len__(self) -> int: ...


T = TypeVar("T", bound=Examples)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
  """Examples that are used together, in memory.

  Attributes:
    inputs: uint8 or float32 array [n, *shape], one example a row.
    labels: int32 array [n], the class of each example.
  """

  inputs: np.ndarray
  labels: np.ndarray

  @property
  def classes(self) -> np.ndarray:
    """The labels."""
    return self.labels

  def take(self, rows: np.ndarray) -> "Split":
    """Returns the examples where `rows`, bool [n], is true."""
    return Split(inputs=self.inputs[rows], labels=self.labels[rows])

  def __len__(self) -> int:
    return len(self.labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
  """A classification data set.

  Attributes:
    splits: the splits by name, among "train", "valid" and "test"; "train" is
      always there.
    num_classes: number of classes; every label is in [0, num_classes).
    fingerprint: names the data by content or by version, never by its place.
  """

  splits: dict[str, Split]
  num_classes: int
  fingerprint: str


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
  """Logs which classes never occur.

  Args:
    labels: of the training examples, in [0, num_classes).
    num_classes: number of classes.
    where: names the data.
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
  """Cuts a random share off a split, the same share of every class.

  The share is `round(fraction * n)` examples. Each class gives the floor of its
  part, and classes with the largest remainders give one more until the number
  is reached; ties are broken at random. No class gives its last example, so a
  split of many tiny classes can give fewer. Both results keep the order of the
  examples, and depend on the classes, the fraction and the seed only.

  Args:
    split: examples and their classes.
    fraction: share to cut off, in [0, 1).
    seed: non-negative seed of the draw.

  Returns:
    What is left of the split, and what was cut off; either can be empty only
    where the share rounds to nothing.
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


def complete(
  found: dict[str, T],
  cuts: Cuts,
  *,
  source: str,
  cut: Callable[..., tuple[T, T]] = cut,
) -> dict[str, T]:
  """Cuts the splits that a source lacks from "train", see `Cuts`.

  Args:
    found: splits by name, "train" among them; left as it is.
    cuts: says how much is cut off, and how.
    source: names the data in messages.
    cut: makes a cut, with the arguments of `cut`.

  Raises:
    ValueError: nothing would be in a split.
  """
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
