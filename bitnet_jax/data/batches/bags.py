"""Documents as bags of pieces: which pieces, and what each counts for."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bitnet_jax.data.text.tokenizers import Ragged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bags:
  """The distinct pieces of documents, one document after the other.

  Attributes:
    pieces: int32 [entries], ascending and distinct within a document.
    weights: float32 [entries], what each piece counts for.
    offsets: int64 [n + 1], where each document starts; the last is the total.
    labels: int32 [n], the class of each document.
    vocab_size: pieces are in [0, vocab_size).
  """

  pieces: np.ndarray
  weights: np.ndarray
  offsets: np.ndarray
  labels: np.ndarray
  vocab_size: int


def occurring(splits: Sequence[Ragged]) -> np.ndarray:
  """Returns the ids that occur in any of the splits, int32, ascending.

  Only these need a row in a table of embeddings. The rows of ids that occur in
  no training document get no gradient, and without weight decay they stay as
  they were drawn: a table of these rows is what a table of the whole vocabulary
  is to the documents at hand.
  """
  ids = [split.values for split in splits]
  return np.unique(np.concatenate(ids)).astype(np.int32)


def inverse_frequency(split: Ragged, vocabulary: np.ndarray) -> np.ndarray:
  """Returns the inverse document frequency of each id.

  It is `ln((1 + n) / (1 + documents with the id)) + 1`, the smoothed form of
  scikit-learn: as if one more document held every id.

  Args:
    split: the n training documents.
    vocabulary: ascending ids.

  Returns:
    Float64 of the shape of the vocabulary.
  """
  pieces, _, _ = _count(split, vocabulary, "train")
  documents = np.bincount(pieces, minlength=len(vocabulary))
  return np.log((1 + len(split)) / (1 + documents)) + 1


def make_bags(
  split: Ragged,
  labels: np.ndarray,
  vocabulary: np.ndarray,
  *,
  name: str,
  idf: np.ndarray | None = None,
) -> Bags:
  """Counts the pieces of documents.

  Args:
    split: ids of n documents.
    labels: [n].
    vocabulary: the ascending ids that there are; a piece is a place in it.
    name: of the split, for messages.
    idf: factor of each piece, by `inverse_frequency`. With it, the weight of a
      piece is its count times its factor, scaled so that the squares of a
      document sum to 1 (TF-IDF). Without it, it is the count by the length of
      the document, so that the weights sum to 1 (a mean).

  Raises:
    ValueError: a document is empty, an id is not in the vocabulary, or there
      are not as many labels as documents; names the document.
  """
  if len(labels) != len(split):
    raise ValueError(
      f"the {name} split has {len(split)} documents and {len(labels)} labels"
    )
  pieces, counts, offsets = _count(split, vocabulary, name)
  sizes = np.diff(offsets)
  if idf is None:
    weights = counts / np.repeat(split.lengths, sizes)
  else:
    weights = counts * idf[pieces]
    norms = np.sqrt(np.add.reduceat(weights**2, offsets[:-1]))
    weights /= np.repeat(norms, sizes)
  return Bags(
    pieces=pieces,
    weights=weights.astype(np.float32),
    offsets=offsets,
    labels=labels.astype(np.int32),
    vocab_size=len(vocabulary),
  )


def _count(split, vocabulary, name):
  """Returns distinct pieces, counts and offsets, document by document."""
  lengths = split.lengths
  empty = np.flatnonzero(lengths == 0)
  if empty.size:
    raise ValueError(f"document {empty[0]} of the {name} split is empty")
  document = np.repeat(np.arange(len(lengths)), lengths)
  places = np.searchsorted(vocabulary, split.values)
  known = vocabulary[np.minimum(places, len(vocabulary) - 1)] == split.values
  if not known.all():
    bad = np.argmin(known)
    raise ValueError(
      f"document {document[bad]} of the {name} split holds the id"
      f" {split.values[bad]}, which is not in the vocabulary"
    )
  pairs, counts = np.unique(
    document * len(vocabulary) + places, return_counts=True
  )
  sizes = np.bincount(pairs // len(vocabulary), minlength=len(lengths))
  offsets = np.concatenate([[0], np.cumsum(sizes)])
  return (pairs % len(vocabulary)).astype(np.int32), counts, offsets
