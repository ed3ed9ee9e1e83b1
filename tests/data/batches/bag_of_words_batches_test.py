import numpy as np
import pytest

from bitnet_jax.data.batches import bag_of_words
from bitnet_jax.data.batches.bag_of_words import count_words
from bitnet_jax.data.text.tokenizers import Ragged

VOCAB_SIZE = 300
SHAPES = ("rows", "columns", "segments", "weights")


def make(count=40, seed=0, longest=60):
  """Documents whose label is their number."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, longest, size=count)
  texts = Ragged.of(rng.integers(VOCAB_SIZE, size=n) for n in lengths)
  vocabulary = np.arange(VOCAB_SIZE)
  return count_words(texts, np.arange(count), vocabulary, name="train")


def whole(found):
  """Returns the weights of all documents, [documents, VOCAB_SIZE]."""
  dense = np.zeros((len(found.labels), VOCAB_SIZE), np.float32)
  rows = np.repeat(np.arange(len(found.labels)), np.diff(found.offsets))
  np.add.at(dense, (rows, found.ids), found.weights)
  return dense


def unpacked(batch, batch_size):
  """Returns the weights of a batch, [batch_size, VOCAB_SIZE]."""
  dense = np.zeros((batch_size, VOCAB_SIZE), np.float32)
  used = batch["segments"] < batch_size
  assert (batch["weights"][~used] == 0).all()
  tokens = batch["rows"][batch["columns"][used]]
  np.add.at(dense, (batch["segments"][used], tokens), batch["weights"][used])
  return dense


def joined(parts):
  return {
    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
  }


def test_batches_hold_their_documents():
  found = make()
  dataset = bag_of_words.train_batches(found, batch_size=6, seed=0)
  for step in range(5):
    batch = dataset(step)
    expected = whole(found)[batch["labels"]]
    np.testing.assert_array_equal(unpacked(batch, 6), expected)
    types = {name: str(array.dtype) for name, array in batch.items()}
    assert types.pop("weights") == "float32"
    assert set(types.values()) == {"int32"}


def test_rows_are_distinct_ascending_and_filled_from_the_end_of_the_table():
  batch = bag_of_words.train_batches(make(), batch_size=6, seed=0)(0)
  assert (np.diff(batch["rows"]) > 0).all()
  used = np.unique(batch["columns"])
  assert (batch["rows"][: len(used)] < VOCAB_SIZE).all()
  assert batch["rows"][len(used) :].min() == VOCAB_SIZE


def test_epochs_leave_no_document_out():
  dataset = bag_of_words.train_batches(make(20), batch_size=8, seed=0)
  labels = np.concatenate([dataset(step)["labels"] for step in range(5)])
  for epoch in labels.reshape(2, 20):
    assert sorted(epoch) == list(range(20))


def test_batch_depends_on_seed_and_step_only():
  found = make()
  one, again, other = (
    bag_of_words.train_batches(found, batch_size=6, seed=seed)
    for seed in (0, 0, 1)
  )
  for step in (7, 3):
    for name, array in one(step).items():
      np.testing.assert_array_equal(array, again(step)[name])
  assert one(3)["labels"].tolist() != other(3)["labels"].tolist()


def test_nearly_all_batches_have_one_size_and_others_double_it():
  rng = np.random.default_rng(0)
  lengths = np.where(np.arange(400) == 7, 5_000, rng.integers(5, 9, size=400))
  texts = Ragged.of(rng.integers(VOCAB_SIZE, size=n) for n in lengths)
  found = count_words(
    texts, np.arange(400), np.arange(VOCAB_SIZE), name="train"
  )
  dataset = bag_of_words.train_batches(found, batch_size=4, seed=0)
  sizes = {}
  for step in range(100):
    batch = dataset(step)
    shapes = tuple(len(batch[name]) for name in SHAPES)
    sizes.setdefault(7 in batch["labels"], set()).add(shapes)
  # Twice the room for rows is not enough for the 300 different ones.
  assert sizes == {False: {(128,) * 4}, True: {(512,) * 4}}


@pytest.mark.parametrize("process_count", [2, 4])
def test_parts_of_processes_make_the_batch_of_one(process_count):
  found = make()

  def batches(index, count):
    process = {"process_index": index, "process_count": count}
    train = bag_of_words.train_batches(found, batch_size=8, seed=0, **process)
    test = bag_of_words.eval_batches(found, batch_size=8, **process)
    return [train(0), train(5), *test]

  parts = [batches(i, process_count) for i in range(process_count)]
  for expected, *part in zip(batches(0, 1), *parts, strict=True):
    together = joined(part)
    assert len({len(p["rows"]) for p in part}) == 1
    np.testing.assert_array_equal(unpacked(together, 8), unpacked(expected, 8))
    np.testing.assert_array_equal(together["labels"], expected["labels"])


def test_evaluation_goes_through_the_documents_once_in_order():
  found = make(21)
  batches = bag_of_words.eval_batches(found, batch_size=8)
  assert len(batches) == 3
  assert len({tuple(len(b[name]) for name in SHAPES) for b in batches}) == 1
  batch = joined(batches)
  labels = batch["labels"][batch["mask"] == 1]
  assert labels.tolist() == list(range(21))
  for number, batch in enumerate(batches):
    here = unpacked(batch, 8)[batch["mask"] == 1]
    expected = whole(found)[8 * number : 8 * number + len(here)]
    np.testing.assert_array_equal(here, expected)


def test_bad_arguments_are_refused():
  with pytest.raises(ValueError, match="batch_size must be positive"):
    bag_of_words.train_batches(make(), batch_size=0, seed=0)
  with pytest.raises(ValueError, match="not divisible"):
    bag_of_words.eval_batches(make(), batch_size=3, process_count=2)
