"""Message passing beside matrices, networkx, and loops over the edges."""

import functools

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest

from bitnet_jax.data import graphs
from bitnet_jax.layers import message_passing as mp
from tests.graphs import adjacency, normalized, random_graph

N = 7
SENDERS, RECEIVERS = map(jnp.asarray, random_graph(N, 9))
# Sums of a handful of numbers, in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def nodes(*shape, seed=1):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


def test_weights_are_those_of_the_normalized_adjacency():
  senders, receivers = mp.add_self_loops(SENDERS, RECEIVERS, num_nodes=N)
  weights = mp.symmetric_weights(senders, receivers, num_nodes=N)
  found = np.zeros((N, N))
  np.add.at(found, (receivers, senders), weights)
  graph = networkx.Graph(zip(SENDERS.tolist(), RECEIVERS.tolist(), strict=True))
  graph.add_edges_from((i, i) for i in range(N))
  laplacian = networkx.normalized_laplacian_matrix(graph, nodelist=range(N))
  np.testing.assert_allclose(found, np.eye(N) - laplacian.todense(), atol=1e-6)
  np.testing.assert_allclose(
    found, normalized(adjacency(SENDERS, RECEIVERS, N)), atol=1e-6
  )


def test_node_that_only_sends_has_finite_weights():
  weights = mp.symmetric_weights(
    jnp.array([0, 0]), jnp.array([1, 1]), num_nodes=2
  )
  np.testing.assert_allclose(weights, [0.5**0.5] * 2, rtol=1e-6)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_propagation_is_a_power_of_the_matrix(steps):
  x = nodes(N, 4)
  propagate = jax.jit(functools.partial(mp.propagate, steps=steps))
  found = propagate(x, SENDERS, RECEIVERS)
  matrix = normalized(adjacency(SENDERS, RECEIVERS, N))
  expected = np.linalg.matrix_power(matrix, steps) @ np.asarray(x)
  np.testing.assert_allclose(found, expected, **CLOSE)
  graph = graphs.Graph(
    features=np.asarray(x),
    senders=np.asarray(SENDERS),
    receivers=np.asarray(RECEIVERS),
  )
  on_host = graphs.propagate(graph, steps=steps)
  assert on_host.dtype == np.float32
  np.testing.assert_allclose(on_host, expected, **CLOSE)


def test_sums_and_means_leave_out_what_is_beyond_the_last_segment():
  values = jnp.array([[1.0], [2.0], [4.0], [8.0]])
  segments = jnp.array([0, 2, 2, 3])
  np.testing.assert_array_equal(
    mp.segment_sum(values, segments, num_segments=3), [[1], [0], [6]]
  )
  np.testing.assert_array_equal(
    mp.segment_mean(values, segments, num_segments=3), [[1], [0], [3]]
  )
  np.testing.assert_array_equal(
    mp.count(segments, num_segments=3), [1.0, 0.0, 2.0]
  )


def test_softmax_is_taken_within_each_segment():
  scores = nodes(6, 2) * 5
  segments = jnp.array([3, 0, 0, 3, 3, 2])
  found = np.asarray(mp.segment_softmax(scores, segments, num_segments=5))
  for segment in (0, 2, 3):
    member = np.asarray(segments) == segment
    exps = np.exp(np.asarray(scores, np.float64)[member])
    np.testing.assert_allclose(found[member], exps / exps.sum(axis=0), **CLOSE)


def test_softmax_of_large_scores_is_finite_and_so_is_its_gradient():
  scores, segments = jnp.array([1e4, 1e4 - 1, -1e4]), jnp.array([0, 0, 1])

  def first(scores):
    return mp.segment_softmax(scores, segments, num_segments=3)[0]

  value, gradient = jax.jit(jax.value_and_grad(first))(scores)
  p = 1 / (1 + np.exp(-1))
  # At 1e4 neighbouring floats are 1e-3 apart.
  np.testing.assert_allclose(value, p, atol=1e-3)
  np.testing.assert_allclose(
    gradient, [p * (1 - p), -p * (1 - p), 0], atol=1e-3
  )


def test_graph_of_node_gives_padding_a_number_beyond_the_last():
  found = mp.graph_of_node(jnp.array([2, 0, 3]), num_nodes=7)
  assert found.tolist() == [0, 0, 2, 2, 2, 3, 3]


def test_batched_graphs_are_those_one_by_one():
  edges = [random_graph(N, 9, seed=seed) for seed in range(4)]
  senders, receivers = (
    jnp.stack(ends).reshape(2, 2, -1) for ends in zip(*edges, strict=True)
  )
  x = nodes(2, 2, N, 3)
  scores = nodes(*senders.shape, 2)
  n_node = jnp.array([[[2, 5], [1, 1]], [[7, 0], [3, 3]]])

  @jax.jit
  def run(x, senders, receivers, scores, n_node):
    return (
      mp.propagate(x, senders, receivers, steps=2),
      mp.segment_softmax(scores, receivers, num_segments=N),
      mp.segment_mean(mp.gather(x, senders), receivers, num_segments=N),
      mp.graph_of_node(n_node, num_nodes=N),
    )

  arguments = (x, senders, receivers, scores, n_node)
  together = run(*arguments)
  for i in range(2):
    for j in range(2):
      alone = run(*(a[i, j] for a in arguments))
      for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b[i, j], **CLOSE)


def test_sums_of_bfloat16_are_taken_in_float32():
  ones = jnp.ones((600, 1), jnp.bfloat16)
  everyone = jnp.arange(600)
  found = mp.aggregate(ones, everyone, jnp.zeros(600, jnp.int32), jnp.ones(600))
  # In bfloat16 the sum would stop at 256.
  assert found.dtype == jnp.bfloat16
  assert float(found[0, 0]) == 600
