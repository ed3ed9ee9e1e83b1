"""Sets of labelled graphs: random ones, and folders of files."""

import networkx
import numpy as np
import pytest

from bitnet_jax.data import graphs
from bitnet_jax.data.sources import random_graphs
from bitnet_jax.data.views import graph_sets
from tests.data import loading


def load(source, **options):
  options = dict(valid_fraction=0.0, test_fraction=0.0, max_degree=4) | options
  return loading.load(graph_sets.load, str(source), **options)


def save(path, **changes):
  """Writes a good file of a path of three nodes; None leaves a member out."""
  members = {
    "edges": np.array([[0, 1], [1, 2]]),
    "label": np.array(1),
    "features": np.ones((3, 2)),
  } | changes
  path.parent.mkdir(exist_ok=True)
  np.savez(path, **{k: v for k, v in members.items() if v is not None})


@pytest.fixture
def folder(tmp_path):
  """Returns ``folder(*names)``, a folder of files with labels 0, 1, 0, ..."""

  def folder(*names):
    for i, name in enumerate(names):
      save(tmp_path / "set" / name, label=np.array(i % 2))
    return f"file:{tmp_path / 'set'}"

  (tmp_path / "set").mkdir()
  return folder


@pytest.mark.parametrize("kind", random_graphs.GENERATORS)
def test_random_graph_is_a_pure_function_of_its_seed(kind):
  first, again, other = (
    random_graphs.draw(kind, 20, seed=seed) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert first.shape != other.shape or np.any(first != other)


@pytest.mark.parametrize("kind", random_graphs.GENERATORS)
def test_random_graphs_are_alike_in_size_and_simple(kind):
  edges = random_graphs.draw(kind, 30, seed=5)
  assert 56 <= len(edges) <= 60
  assert edges.min() >= 0
  assert edges.max() < 30
  assert len({frozenset(pair) for pair in edges.tolist()}) == len(edges)
  assert np.all(edges[:, 0] != edges[:, 1])


def test_random_graphs_differ_in_what_their_generators_are_known_for():
  def draw(kind):
    graph = networkx.Graph(random_graphs.draw(kind, 200, seed=0).tolist())
    degrees = [degree for _, degree in graph.degree]
    return networkx.transitivity(graph), max(degrees)

  uniform, preferential, small_world, geometric = map(
    draw, random_graphs.GENERATORS
  )
  assert uniform[0] < 0.1 < small_world[0] < geometric[0]
  assert preferential[1] > 2 * uniform[1]


def test_unknown_generator_is_named():
  with pytest.raises(ValueError, match=r"kind is 'tree', .*'uniform'"):
    random_graphs.draw("tree", 20, seed=0)


def test_embedded_graphs_are_balanced_and_have_degrees_as_features():
  dataset = load("embedded:graphs")
  assert dataset.num_classes == 4
  assert dataset.splits["train"].graphs[0].features.shape[1] == 5
  for key, count in (("train", 250), ("valid", 75), ("test", 125)):
    split = dataset.splits[key]
    assert np.bincount(split.labels).tolist() == [count] * 4
  graph = dataset.splits["train"].graphs[0]
  degrees = np.bincount(graph.receivers, minlength=graph.num_nodes)
  assert degrees.max() > 4  # So that some are counted as of 4.
  np.testing.assert_array_equal(
    graph.features.argmax(axis=1), np.minimum(degrees, 4)
  )


def test_folder_is_read_in_the_order_of_names(folder):
  source = folder("b.npz", "a.npz", "c.npz")
  dataset = load(source)
  train = dataset.splits["train"]
  assert set(dataset.splits) == {"train"}
  folder = source.removeprefix("file:")
  assert train.names == [f"{folder}, file {name}.npz" for name in "abc"]
  assert train.labels.tolist() == [1, 0, 0]
  assert train.graphs[0].features.shape[1] == 2
  pairs = zip(train.graphs[0].senders, train.graphs[0].receivers, strict=True)
  assert list(pairs) == [(1, 0), (0, 1), (2, 1), (1, 2)]


def test_folders_of_splits_are_used_and_missing_ones_cut(folder):
  source = folder(*(f"train/{i}.npz" for i in range(10)), "test/0.npz")
  dataset = load(source, valid_fraction=0.2, test_fraction=0.5)
  sizes = {key: len(split) for key, split in dataset.splits.items()}
  assert sizes == {"train": 8, "valid": 2, "test": 1}
  assert sorted(dataset.splits["valid"].labels) == [0, 1]
  assert dataset.splits["test"].names[0].endswith(" test/0.npz")


def test_graph_without_features_gets_degrees(tmp_path):
  save(tmp_path / "set" / "a.npz", features=None, num_nodes=np.array(4))
  graph = load(f"file:{tmp_path / 'set'}").splits["train"].graphs[0]
  expected = np.eye(5)[[1, 2, 1, 0]]
  np.testing.assert_array_equal(graph.features, expected)


def test_features_are_normalized_by_row(folder):
  dataset = load(folder("a.npz"), row_normalize=True)
  features = graphs.dense(dataset.splits["train"].graphs[0].features)
  np.testing.assert_array_equal(features, np.full((3, 2), 0.5))


def test_fingerprint_follows_content_and_names(folder, tmp_path):
  source = folder("a.npz", "b.npz")
  first = load(source).fingerprint
  (tmp_path / "set").rename(tmp_path / "moved")
  assert load(f"file:{tmp_path / 'moved'}").fingerprint == first
  save(tmp_path / "moved" / "b.npz", label=np.array(0))
  assert load(f"file:{tmp_path / 'moved'}").fingerprint != first


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"edges": None}, r"b\.npz lacks edges: it holds label, features"),
    ({"label": None}, r"b\.npz lacks label"),
    ({"label": np.array([0, 1])}, r"label is int64 \[2\], it must be one"),
    ({"label": np.array(0.5)}, r"label is float64 \[\]"),
    ({"label": np.array(-1)}, "label -1 at example 1"),
    ({"features": None}, r"b\.npz lacks num_nodes"),
    (
      {"features": None, "num_nodes": np.array(900_000_000)},
      "num_nodes is 900000000, more than 1048576",
    ),
    ({"label": np.array("a")}, r"label is <U1 \[\]"),
    ({"edges": np.array(0)}, r"edges must be \[m, 2\]"),
    ({"features": np.ones((0, 2))}, "a graph of 0 nodes"),
    ({"features": np.ones((3, 3))}, r"b\.npz has 3 features .*a\.npz has 2"),
    (
      {"edges": np.array([[0, 1], [0, 3]])},
      r"b\.npz: edges: edge 1 joins the nodes 0 and 3, but there are 3",
    ),
    ({"edges": np.array([[0, 1, 2]])}, r"edges must be \[m, 2\]"),
  ],
)
def test_what_is_wrong_with_a_graph_is_named(
  folder, tmp_path, changes, message
):
  source = folder("a.npz")
  save(tmp_path / "set" / "b.npz", **changes)
  with pytest.raises(ValueError, match=message):
    load(source)


def test_folder_without_graphs_or_with_two_kinds_is_named(folder, tmp_path):
  source = folder()
  with pytest.raises(ValueError, match="holds 0 itself and none in such"):
    load(source)
  folder("a.npz", "train/b.npz")
  with pytest.raises(ValueError, match="holds 1 itself and 1 in train in such"):
    load(source)
  (tmp_path / "set" / "a.npz").unlink()
  (tmp_path / "set" / "train").rename(tmp_path / "set" / "test")
  with pytest.raises(ValueError, match="holds 0 itself and 1 in test"):
    load(source)


@pytest.mark.parametrize(
  ("source", "options", "error", "message"),
  [
    ("embedded:karate", {}, ValueError, "unknown source of graphs"),
    ("tfds:", {}, ValueError, "embedded:graphs, file:FOLDER and tfds:NAME"),
    ("file:/nowhere", {}, FileNotFoundError, "there is no folder /nowhere"),
    ("embedded:graphs", {"num_classes": 3}, ValueError, "label 3 at example"),
    ("embedded:graphs", {"test_fraction": -1}, ValueError, "test_fraction"),
  ],
)
def test_wrong_arguments_are_named(source, options, error, message):
  with pytest.raises(error, match=message):
    load(source, **options)
