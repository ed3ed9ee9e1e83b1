"""Batches as pure functions of (seed, step, process)."""

import collections.abc
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import overload

import numpy as np

from bitnet_jax import extras
from bitnet_jax.data.batches import images
from bitnet_jax.data.splits import Split

try:
  import grain
except ImportError as error:
  raise extras.missing("batches", "grain", extra="train") from error

Batch = dict[str, np.ndarray]


def train_batches(
  split: Split,
  *,
  batch_size: int,
  seed: int,
  random_crop: int = 0,
  random_flip: bool = False,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.MapDataset:
  """Makes the endless sequence of training batches.

  Every epoch goes through all examples in a new order, and batches run across
  the end of an epoch, so that no example is left out. There is no state:
  `dataset[step]` depends on (seed, step, process) only. The batches of all
  processes, put together in their order, are the batch of a single process.

  Orders and augmentation come from numpy generators, whose numbers are the same
  on every machine with the same numpy.

  Args:
    split: inputs [n, *shape], labels [n].
    batch_size: examples a step over all processes; more than n is fine.
    seed: not negative.
    random_crop: pixels by which images are moved at most, 0 for none; see
      `images.random_crop`.
    random_flip: whether images are mirrored with probability 1/2.
    process_index: this process, in [0, process_count).
    process_count: number of processes that share a batch.

  Returns:
    A dataset; element `step` is a dict of new arrays, "inputs"
    [batch_size / process_count, *shape] in the dtype of the split and "labels"
    int32 [batch_size / process_count].

  Raises:
    ValueError: an argument is out of range, the split is empty, batch_size is
      not divisible by process_count, or inputs to augment are not images.
  """
  rows = process_rows(batch_size, process_index, process_count)
  if not len(split.inputs):
    raise ValueError("cannot make training batches of an empty split")
  if seed < 0:
    raise ValueError(f"seed must not be negative, it is {seed}")
  if random_crop < 0:
    raise ValueError(f"random_crop must not be negative, it is {random_crop}")
  for name, value in (
    ("random_crop", random_crop),
    ("random_flip", random_flip),
  ):
    if value and split.inputs.ndim != 4:
      raise ValueError(
        f"{name}={value} needs images [n, height, width, channels], the inputs"
        f" have the shape {list(split.inputs.shape)}"
      )
  make = _TrainBatch(split, batch_size, rows, seed, random_crop, random_flip)
  return grain.MapDataset.range(sys.maxsize).map(make)


def eval_batches(
  split: Split,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> collections.abc.Sequence[Batch]:
  """Makes the batches that go through a split once, in order.

  All batches have one size, so that a step is compiled once: the last is filled
  with the last example, and "mask" is 1 for examples and 0 for filling.

  Args:
    split: inputs [n, *shape], labels [n].
    batch_size: examples a step over all processes.
    process_index: this process, in [0, process_count).
    process_count: number of processes that share a batch.

  Returns:
    A sequence of dicts of new arrays: "inputs" [batch_size / process_count,
    *shape], "labels" int32 and "mask" float32 [batch_size / process_count]. Its
    length is the same on every process.

  Raises:
    ValueError: an argument is out of range, or batch_size is not divisible by
      process_count.
  """
  rows = process_rows(batch_size, process_index, process_count)
  make = functools.partial(_eval_batch, split)
  return InOrder(len(split.inputs), batch_size, rows, make)


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
  count: int, seed: int, batch_size: int, rows: slice, step: int
) -> np.ndarray:
  """Returns which examples some rows of a training batch hold, int64.

  Args:
    count: number of examples.
    seed: of the order of the epochs, a new one each.
    batch_size: examples a step; batches run across the end of an epoch.
    rows: those of the batch to tell of.
    step: number of the batch.
  """
  start = step * batch_size + rows.start
  stop = step * batch_size + rows.stop
  parts = []
  for epoch in range(start // count, (stop - 1) // count + 1):
    first = epoch * count
    order = _order(count, seed, epoch)
    parts.append(order[max(start - first, 0) : stop - first])
  return np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def _order(count, seed, epoch):
  """Returns the order of an epoch, int64 [count]; a pure function, kept."""
  # The third number keeps this stream apart from that of the augmentation.
  order = np.random.default_rng((seed, epoch, 1)).permutation(count)
  order.setflags(write=False)
  return order


@dataclasses.dataclass(frozen=True)
class _TrainBatch:
  """Makes the batch of a step. One gather a batch: see `train_batches`."""

  split: Split
  batch_size: int
  rows: slice
  seed: int
  padding: int
  mirror: bool

  def __call__(self, step: int) -> Batch:
    indices = epoch_indices(
      len(self.split.inputs), self.seed, self.batch_size, self.rows, int(step)
    )
    inputs = self.split.inputs[indices]
    if self.padding or self.mirror:
      inputs = self._augment(inputs, np.random.default_rng((self.seed, step)))
    return {"inputs": inputs, "labels": self.split.labels[indices]}

  def _augment(self, inputs, rng):
    """Draws for the whole batch, and applies the rows of this process."""
    if self.padding:
      offsets = images.draw_offsets(self.batch_size, rng, padding=self.padding)
      inputs = images.crop(inputs, offsets[self.rows], padding=self.padding)
    if self.mirror:
      flips = images.draw_flips(self.batch_size, rng)
      inputs = images.flip(inputs, flips[self.rows])
    return inputs


def _eval_batch(split, indices, real):
  """Returns the batch of some examples, those that are real with weight 1."""
  return {
    "inputs": split.inputs[indices],
    "labels": split.labels[indices],
    "mask": real.astype(np.float32),
  }


@dataclasses.dataclass(frozen=True)
class InOrder(collections.abc.Sequence[Batch]):
  """Batches that go through examples once, each made when asked for.

  Attributes:
    total: number of examples.
    batch_size: examples a step over all processes.
    rows: those of a global batch that are made.
    make: takes the indices of examples, int64 [rows], and whether each is real
      or fills the last batch up, bool [rows].
  """

  total: int
  batch_size: int
  rows: slice
  make: Callable[[np.ndarray, np.ndarray], Batch]

  def __len__(self) -> int:
    return -(-self.total // self.batch_size)

  @overload
  def __getitem__(self, index: int) -> Batch: ...

  @overload
  def __getitem__(self, index: slice) -> list[Batch]: ...

  def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
    if isinstance(index, slice):
      return [self[i] for i in range(len(self))[index]]
    first = range(len(self))[index] * self.batch_size
    places = np.arange(first + self.rows.start, first + self.rows.stop)
    indices = np.minimum(places, self.total - 1)
    return self.make(indices, places < self.total)
