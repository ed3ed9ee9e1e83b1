import numpy as np
import pytest

from bitnet_jax.data import splits


def make(labels):
  labels = np.asarray(labels, np.int32)
  return splits.Split(inputs=np.arange(len(labels))[:, None], labels=labels)


def rows(split):
  return split.inputs[:, 0].tolist()


def test_cut_takes_the_same_share_of_every_class():
  labels = np.repeat([0, 1, 2], [100, 50, 10])
  kept, taken = splits.cut(make(labels), fraction=0.2, seed=0)
  np.testing.assert_array_equal(np.bincount(taken.labels), [20, 10, 2])
  np.testing.assert_array_equal(np.bincount(kept.labels), [80, 40, 8])


def test_cut_parts_are_disjoint_complete_and_in_the_order_of_the_source():
  split = make(np.random.default_rng(0).integers(5, size=200))
  kept, taken = splits.cut(split, fraction=0.3, seed=1)
  assert sorted(rows(kept) + rows(taken)) == list(range(200))
  assert rows(kept) == sorted(rows(kept))
  assert rows(taken) == sorted(rows(taken))
  np.testing.assert_array_equal(taken.labels, split.labels[rows(taken)])
  assert len(taken.labels) == 60


def test_cut_is_a_function_of_the_seed():
  split = make(np.arange(100) % 4)
  first, again, other = (
    rows(splits.cut(split, fraction=0.5, seed=seed)[1]) for seed in (0, 0, 1)
  )
  assert first == again != other


def test_cut_reaches_the_number_when_every_class_is_tiny():
  # A tenth of four examples is none for each class, but 40 for all of them.
  _, taken = splits.cut(make(np.arange(400) % 100), fraction=0.1, seed=0)
  assert len(taken.labels) == 40
  assert len(set(taken.labels.tolist())) == 40


@pytest.mark.parametrize("fraction", [0.5, 0.99])
def test_cut_leaves_each_class_one_example(fraction):
  labels = [0, 1, 1, 7, 7, 7, 7]
  kept, _ = splits.cut(make(labels), fraction=fraction, seed=0)
  assert set(kept.labels.tolist()) == {0, 1, 7}


def test_cut_of_single_examples_gives_nothing():
  kept, taken = splits.cut(make([0, 1, 2]), fraction=0.9, seed=0)
  assert len(kept.labels) == 3
  assert not len(taken.labels)


def test_cut_counts_a_fraction_that_binary_numbers_miss():
  # 0.29 * 100 is 28.999999999999996.
  _, taken = splits.cut(make([0] * 100), fraction=0.29, seed=0)
  assert len(taken.labels) == 29


@pytest.mark.parametrize(
  ("labels", "num_classes", "message"),
  [
    ([0, 1, 2], 3, None),
    ([0, 2], 3, "x.npz: 1 of 3 classes never occur in train: 1"),
    (
      [1, 2, 3],
      4,
      "x.npz: 1 of 4 classes never occur in train: 0; labels begin at 1, but"
      " classes are numbered from 0",
    ),
    (
      [5],
      20,
      "x.npz: 19 of 20 classes never occur in train: 0, 1, 2, 3, 4, 6, 7, 8, 9,"
      " 10, ...",
    ),
  ],
)
def test_classes_that_never_occur_are_logged(
  labels, num_classes, message, caplog
):
  splits.warn_of_absent(
    np.array(labels), num_classes=num_classes, where="x.npz"
  )
  assert [r.message for r in caplog.records] == ([message] if message else [])


def test_digest_sees_the_borders_of_texts():
  digests = {
    splits.digest(texts)
    for texts in ([], [""], ["ab"], ["a", "b"], ["b", "a"], ["", "ab"])
  }
  assert len(digests) == 6


def test_limit_keeps_so_many_training_examples_of_every_class():
  train, valid = make(np.repeat([0, 1], [90, 10])), make([0, 1])
  dataset = splits.Dataset(
    splits={"train": train, "valid": valid}, fingerprint=""
  )
  first, again, other = (
    splits.limit(dataset, 20, seed=seed, source="x") for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(
    np.bincount(first.splits["train"].labels), [18, 2]
  )
  assert first.splits["valid"] is valid
  drawn = [rows(d.splits["train"]) for d in (first, again, other)]
  assert drawn[0] == drawn[1] != drawn[2]
  assert splits.limit(dataset, 100, seed=0, source="x") is dataset
  with pytest.raises(
    ValueError, match=r"data.train_examples is 101, but x has 100 training"
  ):
    splits.limit(dataset, 101, seed=0, source="x")
