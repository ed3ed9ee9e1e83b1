"""Batches that threads make before they are asked for."""

import os
from collections.abc import Callable, Iterable, Sequence

from bitnet_jax.data.batches.order import Batch
from bitnet_jax.extras import needed_by

# More threads take turns at what Python itself does.
_THREADS = min(os.cpu_count() or 1, 8)
_AHEAD = _THREADS + 2  # batches that are ready or being made


class TrainAhead:
  """A function from a step to its batch, which makes the next ones in advance.

  It is quick if it is called for one step after the other, from one thread. It
  returns what the function that it wraps returns, in any order of calls.
  """

  def __init__(self, batch_at: Callable[[int], Batch]):
    self._batch_at = batch_at
    self._next: int | None = None  # the step that continues the last call
    self._batches = None  # an iterator of grain, which is at that step

  def __call__(self, step: int) -> Batch:
    """Returns the batch of a step; an error in a thread is raised here."""
    step = int(step)
    if step != self._next:
      self.close()
      batch = self._batch_at(step)
    else:
      if self._batches is None:
        self._batches = self._from(step)
      batch = next(self._batches)
    self._next = step + 1
    return batch

  def close(self) -> None:
    """Ends the threads; the next call starts again."""
    if self._batches is not None:
      self._batches.close()
    self._batches = self._next = None

  def _from(self, step):
    """Returns an iterator over the batches from a step on."""
    steps = _grain().MapDataset.range(step, 2**62)
    return iter(_ahead(steps.map(self._batch_at)))


def eval_ahead(batches: Sequence[Batch]) -> Iterable[Batch]:
  """Returns the same batches, which threads make while one is used."""
  return _ahead(_grain().MapDataset.source(batches))


def _ahead(dataset):
  options = _grain().ReadOptions(
    num_threads=_THREADS, prefetch_buffer_size=_AHEAD
  )
  return dataset.to_iter_dataset(options)


def _grain():
  with needed_by("reading pictures while training", "grain"):
    import grain
  return grain
