"""The splits of a data set, their labels, and stratified cuts from them."""

import dataclasses

import numpy as np

# Labels are int32, so the largest count of classes is that of its values >= 0.
_MOST_CLASSES = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
  """Examples that are used together, in memory.

  Attributes:
    inputs: uint8 or float32 array [n, *shape], one example a row.
    labels: int32 array [n], the class of each example.
  """

  inputs: np.ndarray
  labels: np.ndarray


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
  """Returns the largest label + 1, within what int32 labels can name."""
  return min(int(labels.max()) + 1, _MOST_CLASSES)


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


def check_fraction(name: str, fraction: float) -> None:
  """Raises a ValueError unless the fraction is in [0, 1)."""
  if not 0 <= fraction < 1:
    raise ValueError(f"{name} must be in [0, 1), it is {fraction!r}")


def cut(split: Split, *, fraction: float, seed: int) -> tuple[Split, Split]:
  """Cuts a random share off a split, the same share of every class.

  The share is `round(fraction * n)` examples. Each class gives the floor of its
  part, and classes with the largest remainders give one more until the number
  is reached; ties are broken at random. No class gives its last example, so a
  split of many tiny classes can give fewer. Both results keep the order of the
  examples, and depend on the labels, the fraction and the seed only.

  Args:
    split: labels int32 [n], not negative.
    fraction: share to cut off, in [0, 1).
    seed: non-negative seed of the draw.

  Returns:
    What is left of the split, and what was cut off; either can be empty only
    where the share rounds to nothing.
  """
  rng = np.random.default_rng(seed)
  _, classes, counts = np.unique(
    split.labels, return_inverse=True, return_counts=True
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
  kept, taken = (
    Split(inputs=split.inputs[rows], labels=split.labels[rows])
    for rows in (~off, off)
  )
  return kept, taken
