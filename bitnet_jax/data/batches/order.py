"""The order of examples in batches: a pure function of (seed, step, process).

There is no iterator state. Every training epoch goes through all examples in a
new order. Batches continue across the end of an epoch, so no example is left
out. The batches of all processes, concatenated, equal the batch of a single
process. Orders and draws come from NumPy generators, which give the same
numbers on every machine with the same NumPy.

Batches of text use these names. The model (or its decoder) reads "tokens" and
predicts "targets"; "mask" (float32) is the weight of each target. "places", if
present, are the positions of targets and mask. "segment_ids" number the
documents in a row from 1, with 0 for padding; "positions" count from 0 in each
document; "type_ids" distinguish the texts of a pair. In an encoder-decoder the
encoder reads "inputs", with "input_mask" 1 for tokens and 0 for padding. Rows
to classify have "labels" instead of "targets". Ids are int32.
"""

import collections.abc
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, overload

import numpy as np

Batch = dict[str, np.ndarray]
_T = TypeVar("_T")
# The last number of a seed, which separates random streams.
_ORDER, _TRAINING, _EVALUATION = 1, 2, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
  """The random numbers of a batch.

  Attributes:
    seed: (seed, step) in training, (seed,) in evaluation.
    stream: separates training and evaluation.
    rows: int64 [rows], the row of the global batch that each example has in
      training, and the index of the example in evaluation; ascending.
    batch_size: examples of the global batch.
  """

  seed: tuple[int, ...]
  stream: int
  rows: np.ndarray
  batch_size: int

  def words(self, count: int) -> np.ndarray:
    """Returns random bits, uint64 [rows, count].

    The bits of a row do not depend on the other rows.
    """
    first, last = int(self.rows[0]), int(self.rows[-1])
    drawn = draw((*self.seed, self.stream), first, last - first + 1, count)
    return drawn[self.rows - first]

  def generator(self) -> np.random.Generator:
    """Returns a generator for draws that cover the whole global batch."""
    return np.random.default_rng(self.seed)


class Examples(Protocol):
  """Examples that can be gathered into a batch."""

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns a batch of new arrays.

    Args:
      indices: int64 [rows], the indices of the examples.
      draws: random numbers; the batch depends on these and the indices only.
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
) -> Callable[[int], Batch]:
  """Returns the function from a step to its batch.

  Random choices in an example are drawn again at each step.

  Args:
    examples: at least one.
    batch_size: examples a step over all processes; more than there are is fine.
    seed: not negative.
    process_index: this process, in [0, process_count).
    process_count: number of processes that share a batch.

  Returns:
    A function; a batch has batch_size / process_count rows.

  Raises:
    ValueError: an argument is out of range, there is no example, or batch_size
      is not divisible by process_count.
  """
  rows = process_rows(batch_size, process_index, process_count)
  check_training(len(examples), seed)
  return TrainBatches(examples, batch_size, seed, rows)


class TrainBatches:
  """The function that ``train_batches`` returns.

  Attributes:
    examples: what is gathered.
  """

  def __init__(
    self, examples: Examples, batch_size: int, seed: int, rows: slice
  ):
    self.examples = examples
    self._batch_size, self._seed, self._rows = batch_size, seed, rows
    # Of its own: several of them, asked in turns, would empty a shared cache.
    make = functools.partial(_order, len(examples), seed)
    self._order = functools.lru_cache(maxsize=2)(make)

  def indices(self, step: int) -> np.ndarray:
    """Returns the indices of the examples in the batch of a step, int64."""
    return epoch_indices(
      len(self.examples),
      self._seed,
      self._batch_size,
      self._rows,
      step,
      order=self._order,
    )

  def __call__(self, step: int) -> Batch:
    """Returns the batch of a step."""
    step = int(step)
    draws = Draws(
      seed=(self._seed, step),
      stream=_TRAINING,
      rows=np.arange(self._rows.start, self._rows.stop),
      batch_size=self._batch_size,
    )
    return self.examples.batch(self.indices(step), draws)


def fixed_examples(examples: Examples) -> Batch | None:
  """Returns all examples in one batch, if they never depend on draws.

  ``None`` if they do, or do not say that they are ``is_fixed``.
  """
  if not getattr(examples, "is_fixed", False):
    return None
  rows = np.arange(len(examples))
  draws = Draws(seed=(0,), stream=_EVALUATION, rows=rows, batch_size=len(rows))
  return examples.batch(rows, draws)


def eval_batches(
  examples: Examples,
  *,
  batch_size: int,
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Sequence[Batch]:
  """Returns the batches of one pass through examples, in order.

  All batches have one size, so that a step is compiled once. The last one is
  padded with the last example, with "mask" 0. Random choices in an example
  depend on the seed and its index only.

  Args:
    examples: the examples; without any there are no batches.
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
  _check_seed(seed)

  def batch_of(indices: np.ndarray, real: np.ndarray) -> Batch:
    draws = Draws(
      seed=(seed,), stream=_EVALUATION, rows=indices, batch_size=batch_size
    )
    batch = examples.batch(indices, draws)
    weights = real.astype(np.float32)
    if "mask" in batch:
      mask = batch["mask"]
      weights = mask * weights.reshape(-1, *(1,) * (mask.ndim - 1))
    return batch | {"mask": weights}

  return InOrder(len(examples), batch_size, rows, batch_of)


def check_training(count: int, seed: int) -> None:
  """Raises a ValueError unless there are examples and the seed is valid."""
  if not count:
    raise ValueError("cannot make training batches without examples")
  _check_seed(seed)


def _check_seed(seed):
  if seed < 0:
    raise ValueError(f"seed must not be negative, it is {seed}")


def process_rows(
  batch_size: int, process_index: int, process_count: int
) -> slice:
  """Returns the rows of a global batch that belong to a process.

  Raises:
    ValueError: an argument is out of range, or batch_size is not divisible by
      process_count.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size must be positive, it is {batch_size}")
  if not 0 <= process_index < process_count:
    raise ValueError(
      f"process_index must be in 0..{process_count - 1}"
      f" (process_count={process_count}), it is {process_index}"
    )
  if batch_size % process_count:
    raise ValueError(
      f"batch_size={batch_size} is not divisible by"
      f" process_count={process_count}"
    )
  size = batch_size // process_count
  return slice(process_index * size, (process_index + 1) * size)


def epoch_indices(
  count: int,
  seed: int,
  batch_size: int,
  rows: slice,
  step: int,
  *,
  order: Callable[[int], np.ndarray] | None = None,
) -> np.ndarray:
  """Returns the indices of the examples in rows of a training batch, int64.

  Args:
    count: number of examples.
    seed: seed of the epochs' orders.
    batch_size: examples a step; batches continue across the end of an epoch.
    rows: rows of the batch.
    step: number of the batch.
    order: returns the order of an epoch, if the caller keeps them.
  """
  order = order or functools.partial(_order, count, seed)
  start = step * batch_size + rows.start
  stop = step * batch_size + rows.stop
  parts = []
  for epoch in range(start // count, (stop - 1) // count + 1):
    first = epoch * count
    parts.append(order(epoch)[max(start - first, 0) : stop - first])
  return np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def _order(count, seed, epoch):
  """Returns the order of an epoch, int64 [count]."""
  order = np.random.default_rng((seed, epoch, _ORDER)).permutation(count)
  order.setflags(write=False)
  return order


def draw(
  seed: tuple[int, ...], first: int, rows: int, num_words: int
) -> np.ndarray:
  """Draws random bits for consecutive rows.

  Args:
    seed: non-negative integers that identify the stream.
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
  """Converts random bits to float64 numbers in [0, 1) of the same shape."""
  return (words >> np.uint64(11)) * 2.0**-53


@dataclasses.dataclass(frozen=True)
class InOrder(collections.abc.Sequence[_T]):
  """The batches of one pass through examples, made lazily.

  Attributes:
    total: number of examples.
    batch_size: examples a step over all processes.
    rows: the rows of a global batch that this process makes.
    make: makes a batch from the indices of examples, int64 [rows], and whether
      each is real or padding, bool [rows].
  """

  total: int
  batch_size: int
  rows: slice
  make: Callable[[np.ndarray, np.ndarray], _T]

  def __len__(self) -> int:
    return -(-self.total // self.batch_size)

  @overload
  def __getitem__(self, index: int) -> _T: ...

  @overload
  def __getitem__(self, index: slice) -> list[_T]: ...

  def __getitem__(self, index: int | slice) -> _T | list[_T]:
    if isinstance(index, slice):
      return [self[i] for i in range(len(self))[index]]
    first = range(len(self))[index] * self.batch_size
    places = np.arange(first + self.rows.start, first + self.rows.stop)
    return self.make(np.minimum(places, self.total - 1), places < self.total)
