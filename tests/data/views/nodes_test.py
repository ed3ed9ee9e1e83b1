"""Graphs with labelled nodes: files, splits, and what is wrong with them."""

import networkx
import numpy as np
import pytest
import scipy.sparse

from bitnet_jax.data import graphs
from bitnet_jax.data.views import nodes
from tests.data import loading

N, D = 6, 4


def arrays(**changes):
  """Members of a small good file; None leaves one out."""
  members = {
    "edges": np.array([[0, 1], [2, 1], [1, 2], [3, 3], [4, 5]], np.int32),
    "features": np.arange(N * D, dtype=np.float64).reshape(N, D),
    "labels": np.array([0, 1, 2, 0, 1, 2]),
    "train_idx": np.array([0, 1, 2]),
    "val_idx": np.array([3]),
    "test_idx": np.array([5, 4]),
  } | changes
  return {k: v for k, v in members.items() if v is not None}


def sparse_features(matrix=None):
  """Members of the features as compressed rows."""
  if matrix is None:
    matrix = np.array([[0, 2, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]] * 2)
  csr = scipy.sparse.csr_array(matrix.astype(np.float32))
  return {
    "features": None,
    "data": csr.data,
    "indices": csr.indices,
    "indptr": csr.indptr,
    "shape": np.array(csr.shape),
  }


def load(source, **options):
  options = dict(train_per_class=None, valid_fraction=0.0) | options
  return loading.load(nodes.load, str(source), **options)


@pytest.fixture
def saved(tmp_path):
  """Returns ``saved(**changes)``, the source of a file with these members."""

  def saved(**changes):
    np.savez(tmp_path / "graph.npz", **arrays(**changes))
    return f"file:{tmp_path / 'graph.npz'}"

  return saved


def test_file_becomes_a_graph_with_edges_in_both_directions(saved):
  dataset = load(saved())
  pairs = zip(dataset.graph.senders, dataset.graph.receivers, strict=True)
  # By receiver; the doubled edge once, the self loop not at all.
  assert list(pairs) == [(1, 0), (0, 1), (2, 1), (1, 2), (5, 4), (4, 5)]
  assert dataset.graph.senders.dtype == dataset.labels.dtype == np.int32
  assert dataset.graph.features.dtype == np.float32
  np.testing.assert_array_equal(dataset.graph.features, arrays()["features"])
  assert dataset.num_classes == 3
  assert {k: v.tolist() for k, v in dataset.splits.items()} == {
    "train": [0, 1, 2],
    "valid": [3],
    "test": [5, 4],
  }


def test_sparse_features_stay_sparse(saved):
  members = sparse_features()
  features = load(saved(**members)).graph.features
  assert scipy.sparse.issparse(features)
  expected = [[0, 2, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]] * 2
  np.testing.assert_array_equal(graphs.dense(features), expected)


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_are_divided_by_their_sums_and_zeros_stay(saved, sparse):
  matrix = np.array([[0, 2, 0, 2], [0, 0, 0, 0], [1, -3, 0, 0]] * 2)
  changes = sparse_features(matrix) if sparse else {"features": matrix}
  features = load(saved(**changes), row_normalize=True).graph.features
  assert scipy.sparse.issparse(features) == sparse
  expected = [[0, 0.5, 0, 0.5], [0, 0, 0, 0], [0.25, -0.75, 0, 0]] * 2
  np.testing.assert_allclose(graphs.dense(features), expected, rtol=1e-6)
  assert features.dtype == np.float32


def test_nodes_without_label_are_in_no_drawn_split(saved):
  unlabelled = np.array([1, 1, 1, 1, 1, 0], bool)
  source = saved(
    labels=np.array([0, 1, 0, 1, 0, 77]),
    has_label=unlabelled,
    train_idx=None,
    val_idx=None,
    test_idx=None,
  )
  dataset = load(source, train_per_class=1, valid_fraction=0.4)
  assert dataset.num_classes == 2
  chosen = np.concatenate(list(dataset.splits.values()))
  assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4]


def test_fingerprint_follows_content_not_place(saved, tmp_path):
  first = load(saved()).fingerprint
  (tmp_path / "graph.npz").rename(tmp_path / "moved.npz")
  assert load(f"file:{tmp_path / 'moved.npz'}").fingerprint == first
  other = load(saved(labels=np.array([0, 1, 2, 0, 1, 1])))
  assert other.fingerprint != first


def test_karate_club_is_that_of_networkx():
  dataset = load("embedded:karate", train_per_class=4, valid_fraction=0.3)
  club = networkx.karate_club_graph()
  assert dataset.graph.num_edges == 2 * club.number_of_edges()
  np.testing.assert_array_equal(
    dataset.labels,
    [club.nodes[node]["club"] != "Mr. Hi" for node in club],
  )
  assert dataset.class_names == ("Mr. Hi", "Officer")
  np.testing.assert_array_equal(dataset.graph.features, np.eye(34))
  train = dataset.splits["train"]
  assert np.bincount(dataset.labels[train]).tolist() == [4, 4]
  assert {k: len(v) for k, v in dataset.splits.items()} == {
    "train": 8,
    "valid": 8,
    "test": 18,
  }


def test_drawn_splits_are_a_pure_function_of_the_seed():
  def draw(seed):
    dataset = load(
      "embedded:karate",
      train_per_class=4,
      valid_fraction=0.3,
      split_seed=seed,
    )
    assert (
      np.sort(np.concatenate(list(dataset.splits.values()))).tolist()
      == np.arange(34).tolist()
    )
    return {k: v.tolist() for k, v in dataset.splits.items()}

  assert draw(3) == draw(3)
  assert draw(3) != draw(4)


def test_public_split_of_cora_is_read(data_dir):
  dataset = load(f"file:{data_dir}/planetoid/cora.npz")
  assert dataset.graph.num_nodes == 2708
  assert dataset.graph.num_edges == 2 * 5278
  assert dataset.num_classes == 7
  assert {k: len(v) for k, v in dataset.splits.items()} == {
    "train": 140,
    "valid": 500,
    "test": 1000,
  }


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"edges": None}, r"graph\.npz lacks edges: it holds features, labels"),
    ({"labels": None}, "lacks labels"),
    ({"features": None}, "has no features: neither features nor data"),
    (
      {"edges": np.array([[0, 1], [5, 6]])},
      "edges: edge 1 joins the nodes 5 and 6, but there are 6 nodes",
    ),
    ({"edges": np.array([[-1, 0]])}, "edge 0 joins the nodes -1 and 0"),
    ({"edges": np.array([0, 1])}, r"edges must be \[m, 2\], it is \[2\]"),
    ({"edges": np.array([[0.0, 1.0]])}, "edges is float64"),
    ({"labels": np.array([0, 1])}, "labels has 2 entries for 6 nodes"),
    ({"labels": np.zeros(6)}, "labels is float64"),
    ({"labels": np.array([0, 1, -2, 0, 0, 0])}, "label -2 at example 2"),
    ({"has_label": np.zeros(6, bool)}, "no node has a label"),
    ({"train_idx": np.array([0, 6])}, r"train_idx\[1\] is 6, but there are 6"),
    ({"train_idx": None}, "lacks train_idx"),
    ({"val_idx": np.array([], int)}, "val_idx is empty"),
    (
      {"test_idx": np.array([5, 0])},
      r"test_idx\[1\] is 0, which is in train_idx already",
    ),
    (
      {"has_label": np.array([1, 1, 0, 1, 1, 1], bool)},
      r"train_idx\[2\] is 2, a node without a label",
    ),
    (
      {"features": np.full((6, 2), np.nan)},
      r"features\[0, 0\] is NaN or infinite",
    ),
    ({"features": np.ones(6)}, r"features is float64 \[6\], it must be"),
    (sparse_features() | {"indptr": None}, "lacks indptr"),
    (
      sparse_features() | {"indptr": np.array([0, 2, 2, 3, 5, 5, 5])},
      "indptr must rise from 0 to 6 in 6 steps",
    ),
    (
      sparse_features() | {"indices": np.array([1, 3, 0, 1, 4, 0])},
      r"indices\[4\] is 4, but there are 4 features",
    ),
    (
      sparse_features() | {"data": np.array([1, 2, 3, 4, 5, np.inf])},
      r"data\[5\] is NaN or infinite",
    ),
    (
      sparse_features() | {"data": np.ones(5)},
      "there are 5 data, but 6 indices",
    ),
    (sparse_features() | {"shape": np.array([6])}, r"shape is \(6,\)"),
    # Members that are scalars, strings, or of another kind.
    ({"has_label": np.array(True)}, r"has_label is bool \[\], it must be"),
    ({"has_label": np.array(["a"] * 6)}, r"has_label is <U1 \[6\]"),
    ({"labels": np.array(["a"] * 6)}, r"labels is <U1 \[6\]"),
    ({"labels": np.array(1)}, r"labels is int64 \[\]"),
    ({"edges": np.array("ab")}, r"edges must be \[m, 2\]"),
    ({"edges": np.array([["a", "b"]])}, "edges is <U1"),
    ({"features": np.array("ab")}, r"features is <U2 \[\]"),
    ({"features": np.full((6, 2), 1j)}, r"features is complex128 \[6, 2\]"),
    ({"train_idx": np.array("0")}, r"train_idx is <U1 \[\]"),
    (sparse_features() | {"shape": np.array(6)}, r"shape is int64 \[\]"),
    (sparse_features() | {"shape": np.array(["6", "4"])}, "shape is <U1"),
    (sparse_features() | {"data": np.array(["a"] * 6)}, "data is <U1"),
    (sparse_features() | {"data": np.full(6, 1j)}, "data is complex128"),
    (sparse_features() | {"indptr": np.array(0)}, r"indptr is int64 \[\]"),
    # A difference of unsigned numbers is never negative.
    (
      sparse_features()
      | {"indptr": np.array([0, 2**40, 1, 2, 3, 4, 6], np.uint64)},
      "indptr must rise",
    ),
    (sparse_features() | {"shape": np.array([6, 2**40])}, "d at most 16777216"),
  ],
)
def test_what_is_wrong_with_a_file_is_named(saved, changes, message):
  with pytest.raises(ValueError, match=message):
    load(saved(**changes))


@pytest.mark.parametrize(
  ("source", "options", "error", "message"),
  [
    ("embedded:cora", {}, ValueError, "unknown source of a graph"),
    ("http:x", {}, ValueError, "choose among embedded:karate, file:PATH.npz"),
    ("file:graph.txt", {}, ValueError, "file:graph.txt.*file:PATH.npz"),
    ("file:/nowhere/graph.npz", {}, FileNotFoundError, "there is no file"),
    ("tfds:planetoid/wiki", {}, ValueError, "'tfds:planetoid/cora'"),
    ("embedded:karate", {}, ValueError, "has no splits; train_per_class must"),
    (
      "embedded:karate",
      {"train_per_class": 17},
      ValueError,
      "train_per_class is 17, but class 0 has 17 nodes",
    ),
    (
      "embedded:karate",
      {"train_per_class": 4, "num_classes": 1},
      ValueError,
      "label 1 at example",
    ),
    (
      "embedded:karate",
      {"train_per_class": 4, "valid_fraction": 1.0},
      ValueError,
      "valid_fraction must be in",
    ),
  ],
)
def test_wrong_arguments_are_named(source, options, error, message):
  with pytest.raises(error, match=message):
    load(source, **options)
