import threading

import numpy as np
import pytest

from bitnet_jax.data.batches import ahead, order


def batch_at(step):
  return {"inputs": np.array([step])}


def steps_of(batches):
  return [batch["inputs"].item() for batch in batches]


@pytest.fixture
def made():
  """Steps whose batches were made, and a function that counts."""
  steps = []

  def make(step):
    steps.append(step)
    return batch_at(step)

  batches = ahead.TrainAhead(make)
  yield steps, batches
  batches.close()


def test_batches_are_those_of_the_function_in_any_order(made):
  _, batches = made
  steps = [0, 0, *range(30), 1000, 1001, 1002, 1002, 5, 6, 7, np.int32(8), 3]
  assert steps_of(map(batches, steps)) == steps


def test_next_batches_are_made_before_they_are_asked_for(made):
  steps, batches = made
  batches(7)
  assert steps == [7]  # A single call starts no threads.
  batches(8)
  for _ in range(1000):
    if 9 in steps:
      return
    threading.Event().wait(0.01)
  raise AssertionError(f"only {steps} were made")


def test_error_in_a_thread_is_raised_at_its_step(made):
  def fail(step):
    if step == 3:
      raise FileNotFoundError("there is no picture a.png")
    return batch_at(step)

  batches = ahead.TrainAhead(fail)
  assert steps_of(map(batches, range(3))) == [0, 1, 2]
  with pytest.raises(FileNotFoundError) as caught:
    batches(3)
  assert str(caught.value) == "there is no picture a.png"
  batches.close()


def test_closed_batches_leave_no_threads_and_can_go_on(made):
  _, batches = made
  before = threading.active_count()
  assert steps_of(map(batches, range(4))) == [0, 1, 2, 3]
  threads = [t for t in threading.enumerate() if "grain" in t.name]
  assert threads
  batches.close()
  batches.close()
  for thread in threads:
    thread.join(timeout=10)
  assert threading.active_count() <= before
  assert steps_of(map(batches, range(4, 7))) == [4, 5, 6]


def test_evaluation_batches_are_the_same_in_each_pass():
  batches = order.InOrder(10, 4, slice(0, 4), lambda rows, real: rows)
  made = ahead.eval_ahead(batches)
  for _ in range(2):
    np.testing.assert_array_equal(list(made), list(batches))
