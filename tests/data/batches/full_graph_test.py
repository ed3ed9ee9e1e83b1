"""The batches of one graph, split over devices."""

import numpy as np
import pytest

from bitnet_jax.data import graphs
from bitnet_jax.data.batches.full_graph import make_batches
from bitnet_jax.data.splits import NO_CUTS
from bitnet_jax.data.views import nodes


@pytest.fixture(scope="module")
def karate():
  return nodes.load("embedded:karate", NO_CUTS, train_per_class=4)


def test_padding_has_no_mask_and_its_edges_stay_in_it(karate):
  n = karate.graph.num_nodes
  one, many = (
    make_batches(karate, propagation_steps=None, shards=shards)["train"]
    for shards in (1, 7)
  )
  edges = one["senders"].shape[1]
  assert one["nodes"].shape[1] == n and n % 7 and edges % 7
  for name, array in many.items():
    assert array.shape[1] % 7 == 0
    np.testing.assert_array_equal(array[:, : one[name].shape[1]], one[name])
  assert not many["mask"][:, n:].any() and not many["nodes"][:, n:].any()
  for ends in ("senders", "receivers"):
    assert (many[ends][:, edges:] == many["nodes"].shape[1] - 1).all()
  # A padding edge needs a padding node, also where the nodes divide evenly.
  halves = make_batches(karate, propagation_steps=None, shards=n)["train"]
  assert edges % n and halves["nodes"].shape[1] == 2 * n


def test_nodes_of_a_split_have_propagated_features(karate):
  batches = make_batches(karate, propagation_steps=2, shards=1)
  expected = graphs.propagate(karate.graph, steps=2)
  assert batches.keys() == karate.splits.keys()
  for split, rows in karate.splits.items():
    assert batches[split].keys() == {"nodes", "labels", "mask"}
    np.testing.assert_array_equal(batches[split]["nodes"][0], expected[rows])
    assert batches[split]["mask"].all()
