"""Small graphs for tests, and their matrices."""

import numpy as np


def random_graph(num_nodes, num_edges, *, seed=0):
  """Returns senders and receivers of an undirected graph without loops.

  The last node has no edge.
  """
  rng = np.random.default_rng(seed)
  pairs = np.stack(np.triu_indices(num_nodes - 1, 1), axis=1)
  edges = pairs[rng.permutation(len(pairs))[:num_edges]]
  ends = np.concatenate([edges, edges[:, ::-1]]).astype(np.int32)
  return ends[:, 0], ends[:, 1]


def adjacency(senders, receivers, num_nodes):
  """Returns A, float64 [n, n]: A[i, j] is the edge that i gets from j."""
  matrix = np.zeros((num_nodes, num_nodes))
  np.add.at(matrix, (receivers, senders), 1)
  return matrix


def normalized(matrix):
  """Returns D^-1/2 (A + I) D^-1/2."""
  with_loops = matrix + np.eye(len(matrix))
  factors = with_loops.sum(axis=1) ** -0.5
  return factors[:, None] * with_loops * factors
