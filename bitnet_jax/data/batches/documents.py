"""Batches of documents: flat arrays, never padded to the longest document."""

import dataclasses
import sys

import numpy as np

from bitnet_jax import extras
from bitnet_jax.data.batches import pipeline
from bitnet_jax.data.batches.bags import Bags
from bitnet_jax.data.splits import Split

try:
  import grain
except ImportError as error:
  raise extras.missing("batches", "grain", extra="train") from error

_ROUND = 128  # Sizes are multiples of this, and then double.
_SAMPLE = 256  # How many of the first batches the smallest size is taken from,
_FITTING = 0.98  # and which share of them it is to hold.


def train_batches(
  bags: Bags,
  *,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.MapDataset:
  """Makes the endless sequence of training batches, see `pipeline`.

  Nearly all batches have one size, so that steps can be taken together; the
  others have twice the room, or four times, and so on, so that few programs are
  compiled.

  Args:
    bags: the training documents.
    batch_size: documents a step over all processes.
    seed: of the order, not negative.
    process_index: this process, in [0, process_count).
    process_count: number of processes that share a batch.

  Returns:
    A dataset; element `step` is a dict of new arrays.

    - "rows" int32 [rows]: the distinct pieces of this process's documents,
      ascending, then filled with numbers from vocab_size on.
    - "columns" int32 [entries]: where in "rows" a piece is.
    - "segments" int32 [entries]: the number of its document in the batch;
      filled with batch_size.
    - "weights" float32 [entries]: what it counts for; filled with 0.
    - "labels" int32 [batch_size / process_count].

    Entries and rows are as many on each process; columns and segments count
    through the arrays of all processes put together.

  Raises:
    ValueError: as `pipeline.train_batches`.
  """
  split = _numbered(bags)
  parts = [
    pipeline.train_batches(
      split,
      batch_size=batch_size,
      seed=seed,
      process_index=i,
      process_count=process_count,
    )
    for i in range(process_count)
  ]

  def at(step):
    return [_gather(bags, part[step]) for part in parts]

  needs = [_need(at(step)) for step in range(_SAMPLE)]
  smallest = _rounded(np.quantile(needs, _FITTING, axis=0, method="higher"))

  def batch(step):
    gathered, room = at(step), smallest
    while (_need(gathered) > room).any():
      room = 2 * room
    return gathered[process_index].padded(room, process_index, batch_size)

  return grain.MapDataset.range(sys.maxsize).map(batch)


def eval_batches(
  bags: Bags,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> list[pipeline.Batch]:
  """Makes the batches that go through a split once, in order.

  They are those of `train_batches`, all of one size; the last is filled with
  the last document, and "mask" is 1 for documents and 0 for filling.
  """
  split = _numbered(bags)
  parts = [
    pipeline.eval_batches(
      split,
      batch_size=batch_size,
      process_index=i,
      process_count=process_count,
    )
    for i in range(process_count)
  ]
  gathered = [
    [_gather(bags, part[i]) for part in parts] for i in range(len(parts[0]))
  ]
  room = _rounded(np.max([_need(parts) for parts in gathered], axis=0))
  return [
    parts[process_index].padded(room, process_index, batch_size)
    for parts in gathered
  ]


def _numbered(bags):
  """Returns a split whose inputs are the numbers of the documents."""
  numbers = np.arange(len(bags.labels), dtype=np.int32)
  return Split(inputs=numbers, labels=bags.labels)


def _rounded(needed):
  """Returns room for what is needed, int64."""
  return _ROUND * np.ceil(needed / _ROUND).astype(np.int64)


def _need(parts):
  """Returns how many entries and how many rows a process has at most."""
  return np.max([(len(p.columns), len(p.rows)) for p in parts], axis=0)


@dataclasses.dataclass(frozen=True)
class _Part:
  """A process's part of a batch before it is filled up.

  Attributes:
    rows: distinct pieces, ascending.
    columns: where in the rows the piece of each entry is.
    segments: the number of its document in this part.
    weights: what it counts for.
    rest: what is there for each document.
    fill: number of the first row that there is not.
  """

  rows: np.ndarray
  columns: np.ndarray
  segments: np.ndarray
  weights: np.ndarray
  rest: pipeline.Batch
  fill: int

  def padded(
    self, room: np.ndarray, process_index: int, batch_size: int
  ) -> pipeline.Batch:
    """Returns the batch with room for so many entries and rows."""
    entries, rows = room
    unused_rows = np.arange(rows - len(self.rows)) + self.fill
    unused = entries - len(self.columns)
    first_row = process_index * rows
    first_document = process_index * len(self.rest["labels"])
    return {
      "rows": np.concatenate([self.rows, unused_rows]).astype(np.int32),
      "columns": _filled(self.columns + first_row, unused, 0),
      "segments": _filled(self.segments + first_document, unused, batch_size),
      "weights": np.append(self.weights, np.zeros(unused, np.float32)),
      **self.rest,
    }


def _filled(values, count, fill):
  """Returns int32 values with `count` times `fill` behind them."""
  return np.append(values, np.full(count, fill)).astype(np.int32)


def _gather(bags, example):
  """Puts together the entries of some documents."""
  numbers = example.pop("inputs")
  starts, stops = bags.offsets[numbers], bags.offsets[numbers + 1]
  places = [slice(a, b) for a, b in zip(starts, stops, strict=True)]
  entries = np.concatenate([bags.pieces[place] for place in places])
  weights = np.concatenate([bags.weights[place] for place in places])
  rows, columns = np.unique(entries, return_inverse=True)
  segments = np.repeat(np.arange(len(numbers)), stops - starts)
  return _Part(rows, columns, segments, weights, example, bags.vocab_size)
