"""What is made of the features of graphs on the host."""

import numpy as np
import pytest
import scipy.sparse

from bitnet_jax.data import graphs


@pytest.mark.parametrize("kind", [np.array, scipy.sparse.csr_array])
@pytest.mark.parametrize(
  ("row", "total"), [([3e38, -3e38], "inf"), ([1e-41, 0], "1e-41 ")]
)
def test_features_that_cannot_be_normalized_are_named(kind, row, total):
  features = kind(np.array([[1, 2], [0, 0], row], np.float32))
  with pytest.raises(
    ValueError, match=rf"here: the absolute features of node 2 sum to {total}"
  ):
    graphs.normalize_rows(features, where="here")


@pytest.mark.parametrize("kind", [np.array, scipy.sparse.csr_array])
def test_rows_are_divided_by_their_sum(kind):
  features = kind(np.array([[1, -3], [0, 0]], np.float32))
  found = graphs.dense(graphs.normalize_rows(features, where="here"))
  np.testing.assert_array_equal(found, [[0.25, -0.75], [0, 0]])


def test_features_that_overflow_as_they_are_propagated_are_named():
  """A hub of many large neighbours, of which each has a single one."""
  spokes, hub = np.arange(1, 21), np.zeros(20, int)
  senders, receivers = graphs.both_directions(
    np.stack([hub, spokes], 1), num_nodes=21, where="here"
  )
  graph = graphs.Graph(
    features=np.full((21, 1), 3e38, np.float32),
    senders=senders,
    receivers=receivers,
  )
  with pytest.raises(ValueError, match="feature 0 of node 0 is inf after"):
    graphs.propagate(graph, steps=1)
