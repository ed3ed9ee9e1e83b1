"""Batches of documents as bags of words.

A batch consists of flat arrays, which are not padded to the longest document.
Nearly all training batches have one size, so that several steps can run in one
program. Larger batches have twice that size, or four times, and so on, so that
few programs are compiled.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from bitnet_jax.data.batches import order
from bitnet_jax.data.batches.order import Batch
from bitnet_jax.data.text.tokenizers import Ragged

_ROUND = 128  # Sizes are multiples of this, and then double.
_SAMPLE = 256  # How many of the first batches decide the smallest size,
_FITTING = 0.98  # and the fraction of them that it is to hold.


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagsOfWords:
  """The distinct tokens of documents, one document after the other.

  Attributes:
    ids: int32 [entries], ascending and distinct within a document.
    weights: float32 [entries], what each token counts for.
    offsets: int64 [n + 1], where each document starts; the last is the total.
    labels: int32 [n], the class of each document.
    vocab_size: ids are in [0, vocab_size).
  """

  ids: np.ndarray
  weights: np.ndarray
  offsets: np.ndarray
  labels: np.ndarray
  vocab_size: int


def occurring(splits: Sequence[Ragged]) -> np.ndarray:
  """Returns the ids that occur in any of the splits, int32, ascending.

  Only these need a row in the embedding table. The row of an id that occurs in
  no training document gets no gradient, and without weight decay it stays at
  its initial value. So a table of these rows gives the same results as one of
  the whole vocabulary.
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
  ids, _, _ = _count(split, vocabulary, "train")
  documents = np.bincount(ids, minlength=len(vocabulary))
  return np.log((1 + len(split)) / (1 + documents)) + 1


def count_words(
  split: Ragged,
  labels: np.ndarray,
  vocabulary: np.ndarray,
  *,
  name: str,
  idf: np.ndarray | None = None,
) -> BagsOfWords:
  """Counts the tokens of documents.

  Args:
    split: ids of n documents.
    labels: [n].
    vocabulary: ascending ids; a bag refers to them by index.
    name: name of the split, for messages.
    idf: factor of each token, by `inverse_frequency`. With it, the weight of a
      token is its count times its factor, scaled so that the squares of a
      document sum to 1 (TF-IDF). Without it, it is the count divided by the
      length of the document, so that the weights sum to 1 (a mean).

  Raises:
    ValueError: a document is empty, an id is not in the vocabulary, or there
      are not as many labels as documents; names the document.
  """
  if len(labels) != len(split):
    raise ValueError(
      f"the {name} split has {len(split)} documents and {len(labels)} labels"
    )
  ids, counts, offsets = _count(split, vocabulary, name)
  sizes = np.diff(offsets)
  if idf is None:
    weights = counts / np.repeat(split.lengths, sizes)
  else:
    weights = counts * idf[ids]
    norms = np.sqrt(np.add.reduceat(weights**2, offsets[:-1]))
    weights /= np.repeat(norms, sizes)
  return BagsOfWords(
    ids=ids,
    weights=weights.astype(np.float32),
    offsets=offsets,
    labels=labels.astype(np.int32),
    vocab_size=len(vocabulary),
  )


def _count(split, vocabulary, name):
  """Returns distinct ids, counts and offsets, document by document."""
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


def train_batches(
  bags: BagsOfWords,
  *,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Callable[[int], Batch]:
  """Returns the function from a step to its batch; see `order`.

  Args:
    bags: the training documents.
    batch_size: documents a step over all processes.
    seed: seed of the order, not negative.
    process_index: this process, in [0, process_count).
    process_count: number of processes that share a batch.

  Returns:
    A function; a batch is a dict of new arrays.

    - "rows" int32 [rows]: the distinct ids of this process's documents,
      ascending, then padded with numbers from vocab_size on.
    - "columns" int32 [entries]: where in "rows" an id is.
    - "segments" int32 [entries]: the number of its document in the batch;
      padded with batch_size.
    - "weights" float32 [entries]: what it counts for; padded with 0.
    - "labels" int32 [batch_size / process_count].

    Entries and rows are as many on each process; columns and segments count
    through the arrays of all processes put together.

  Raises:
    ValueError: as `order.train_batches`.
  """
  parts = _rows_of_all(batch_size, process_index, process_count)
  order.check_training(len(bags.labels), seed)

  def gather(step):
    indices = functools.partial(
      order.epoch_indices, len(bags.labels), seed, batch_size
    )
    return [_gather(bags, indices(rows, int(step))) for rows in parts]

  needs = [_need(gather(step)) for step in range(_SAMPLE)]
  smallest = _rounded(np.quantile(needs, _FITTING, axis=0, method="higher"))

  def batch_at(step: int) -> Batch:
    gathered = gather(step)
    room = _enough(gathered, smallest)
    return gathered[process_index].padded(room, process_index, batch_size)

  return batch_at


def eval_batches(
  bags: BagsOfWords,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> list[Batch]:
  """Returns the batches that go through a split once, in order.

  They are those of `train_batches`, all of one size; the last is padded with
  the last document, and "mask" is 1 for documents and 0 for padding.
  """
  parts = [
    _in_order(bags, batch_size, rows)
    for rows in _rows_of_all(batch_size, process_index, process_count)
  ]
  gathered = list(zip(*parts, strict=True))
  if not gathered:
    return []
  room = _rounded(np.max([_need(parts) for parts in gathered], axis=0))
  return [
    parts[process_index].padded(room, process_index, batch_size)
    for parts in gathered
  ]


def batch_of(bags: BagsOfWords, *, batch_size: int, multiple: int = 1) -> Batch:
  """Returns one batch of documents, as `eval_batches`.

  Its arrays have one of few sizes, so that few programs are compiled.

  Args:
    bags: at least one document, at most `batch_size`.
    batch_size: documents of the batch, padding included.
    multiple: number of which the sizes are multiples.
  """
  part = _in_order(bags, batch_size, slice(0, batch_size))[0]
  room = np.full(2, multiple * -(-_ROUND // multiple))
  return part.padded(_enough([part], room), 0, batch_size)


def _in_order(bags, batch_size, rows):
  """Returns this part of all batches of one pass."""

  def gather(indices, real):
    part = _gather(bags, indices)
    return dataclasses.replace(
      part, rest={**part.rest, "mask": real.astype(np.float32)}
    )

  return order.InOrder(len(bags.labels), batch_size, rows, gather)


def _enough(parts, room):
  """Returns room for some parts: the given one, or a power of two of it."""
  while (_need(parts) > room).any():
    room = 2 * room
  return room


def _rows_of_all(batch_size, process_index, process_count):
  """Returns the rows of a batch of each process, arguments checked."""
  order.process_rows(batch_size, process_index, process_count)
  return [
    order.process_rows(batch_size, i, process_count)
    for i in range(process_count)
  ]


def _rounded(needed):
  """Returns room for what is needed, int64."""
  return _ROUND * np.ceil(needed / _ROUND).astype(np.int64)


def _need(parts):
  """Returns how many entries and how many rows a process has at most."""
  return np.max([(len(p.columns), len(p.rows)) for p in parts], axis=0)


@dataclasses.dataclass(frozen=True)
class _Part:
  """A process's part of a batch before it is padded.

  Attributes:
    rows: distinct ids, ascending.
    columns: where in the rows the id of each entry is.
    segments: the number of its document in this part.
    weights: what it counts for.
    rest: what there is for each document.
    vocab_size: number of the first row that does not exist.
  """

  rows: np.ndarray
  columns: np.ndarray
  segments: np.ndarray
  weights: np.ndarray
  rest: Batch
  vocab_size: int

  def padded(
    self, room: np.ndarray, process_index: int, batch_size: int
  ) -> Batch:
    """Returns the batch with room for so many entries and rows."""
    entries, rows = room
    unused_rows = np.arange(rows - len(self.rows)) + self.vocab_size
    unused = entries - len(self.columns)
    first_row = process_index * rows
    first_document = process_index * len(self.rest["labels"])
    return {
      "rows": np.concatenate([self.rows, unused_rows]).astype(np.int32),
      "columns": _pad(self.columns + first_row, unused, 0),
      "segments": _pad(self.segments + first_document, unused, batch_size),
      "weights": np.append(self.weights, np.zeros(unused, np.float32)),
      **self.rest,
    }


def _pad(values, count, padding):
  """Returns int32 values with `count` times `padding` behind them."""
  return np.append(values, np.full(count, padding)).astype(np.int32)


def _gather(bags, indices):
  """Puts together the entries of some documents."""
  starts, stops = bags.offsets[indices], bags.offsets[indices + 1]
  places = [slice(a, b) for a, b in zip(starts, stops, strict=True)]
  entries = np.concatenate([bags.ids[place] for place in places])
  weights = np.concatenate([bags.weights[place] for place in places])
  rows, columns = np.unique(entries, return_inverse=True)
  segments = np.repeat(np.arange(len(indices)), stops - starts)
  rest = {"labels": bags.labels[indices]}
  return _Part(rows, columns, segments, weights, rest, bags.vocab_size)
