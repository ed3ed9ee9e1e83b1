"""Batches of sequences as pure functions of (seed, step, process).

One naming for all that transformers read: "tokens" is what the model (or its
decoder) reads, "targets" what it has to say at each of them, "mask" (float32)
how much each target counts; "places", where there are any, are the tokens that
targets and mask are of. "segment_ids" number the documents of a row from 1,
0 for padding, "positions" count from 0 in each of them, "type_ids" tell the
texts of a pair apart. What an encoder reads for a decoder is "inputs", with
"input_mask", 1 for tokens and 0 for padding. Rows that are classified have
"labels" in place of "targets". Ids are int32.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from bitnet_jax import extras
from bitnet_jax.data.batches.pipeline import (
  Batch,
  InOrder,
  epoch_indices,
  process_rows,
)

try:
  import grain
except ImportError as error:
  raise extras.missing("batches", "grain", extra="train") from error


class Examples(Protocol):
  """Examples, a number of which make a batch."""

  @property
  def num_words(self) -> int:
    """How many random words an example takes, 0 for none."""
    ...

  def batch(self, indices: np.ndarray, words: np.ndarray) -> Batch:
    """Returns a batch of new arrays, "mask" among them.

    Args:
      indices: of the examples, int64 [rows].
      words: random bits, uint64 [rows, num_words]; the batch is a function of
        these and of the indices.
    """
    ...

  def __len__(self) -> int: ...


def train_batches(
  examples: Examples,
  *,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.MapDataset:
  """Makes the endless sequence of training batches.

  Order and sharing are those of `pipeline.train_batches`; what is random in an
  example is drawn anew at each step.

  Args:
    examples: at least one.
    batch_size: examples a step over all processes; more than there are is fine.
    seed: not negative.
    process_index: this process, in [0, process_count).
    process_count: number of processes that share a batch.

  Returns:
    A dataset; element `step` is a dict of new arrays with batch_size /
    process_count rows.

  Raises:
    ValueError: an argument is out of range, there is no example, or batch_size
      is not divisible by process_count.
  """
  rows = process_rows(batch_size, process_index, process_count)
  if not len(examples):
    raise ValueError("cannot make training batches of no example")
  if seed < 0:
    raise ValueError(f"seed must not be negative, it is {seed}")
  make = _TrainBatch(examples, batch_size, rows, seed)
  return grain.MapDataset.range(sys.maxsize).map(make)


def eval_batches(
  examples: Examples,
  *,
  batch_size: int,
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Sequence[Batch]:
  """Makes the batches that go through examples once, in order.

  The last batch is filled with the last example, whose "mask" is then 0. What
  is random in an example depends on the seed and its index only.

  Args:
    examples: none is fine, and gives no batch.
    batch_size: examples a step over all processes.
    seed: not negative.
    process_index: this process, in [0, process_count).
    process_count: number of processes that share a batch.

  Returns:
    A sequence of dicts of new arrays, of one length on every process.

  Raises:
    ValueError: an argument is out of range, or batch_size is not divisible by
      process_count.
  """
  rows = process_rows(batch_size, process_index, process_count)
  if seed < 0:
    raise ValueError(f"seed must not be negative, it is {seed}")
  make = functools.partial(_eval_batch, examples, seed)
  return InOrder(len(examples), batch_size, rows, make)


def draw(
  seed: tuple[int, ...], first: int, rows: int, num_words: int
) -> np.ndarray:
  """Draws random bits for consecutive rows.

  Args:
    seed: not negative integers that name the stream.
    first: number of the first row; a row has the same bits whichever rows are
      drawn with it.
    rows: number of rows.
    num_words: number of words a row.

  Returns:
    uint64 [rows, num_words].
  """
  blocks = -(-num_words // 4)  # the generator counts blocks of four words
  key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
  generator = np.random.Philox(key=key, counter=first * blocks)
  words = generator.random_raw(rows * blocks * 4)
  return words.reshape(rows, blocks * 4)[:, :num_words]


def uniform(words: np.ndarray) -> np.ndarray:
  """Turns random bits into float64 numbers in [0, 1) of the same shape."""
  return (words >> np.uint64(11)) * 2.0**-53


@dataclasses.dataclass(frozen=True)
class _TrainBatch:
  """Makes the batch of a step."""

  examples: Examples
  batch_size: int
  rows: slice
  seed: int

  def __call__(self, step: int) -> Batch:
    count, step = len(self.examples), int(step)
    indices = epoch_indices(count, self.seed, self.batch_size, self.rows, step)
    # The last number keeps the stream apart from others of the same seed.
    stream, num_words = (self.seed, step, 2), self.examples.num_words
    words = draw(stream, self.rows.start, len(indices), num_words)
    return self.examples.batch(indices, words)


def _eval_batch(examples, seed, indices, real):
  """Returns the batch of some examples, those that are real with weight."""
  first = int(indices[0])
  drawn = int(indices[-1]) - first + 1  # less than there are where one repeats
  words = draw((seed, 3), first, drawn, examples.num_words)
  batch = examples.batch(indices, words[indices - first])
  rows = real.reshape(-1, *(1,) * (batch["mask"].ndim - 1))
  return batch | {"mask": batch["mask"] * rows.astype(np.float32)}
