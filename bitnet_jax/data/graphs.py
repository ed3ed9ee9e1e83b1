"""Graphs of NumPy arrays: edges, features, normalization and propagation."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bitnet_jax.extras import needed_by

_LEAST_SUM = np.finfo(np.float32).tiny  # whose reciprocal is finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
  """Nodes with features, and the edges between them.

  Attributes:
    features: float32 [n, d], dense or a SciPy sparse matrix.
    senders: int32 [e], start of each edge; an undirected edge appears once in
      each direction, and there are no self loops.
    receivers: int32 [e], end of each edge.
  """

  features: Any
  senders: np.ndarray
  receivers: np.ndarray

  @property
  def num_nodes(self) -> int:
    """The number of nodes."""
    return self.features.shape[0]

  @property
  def num_edges(self) -> int:
    """The number of edges, each direction counted."""
    return len(self.senders)


def sparse() -> Any:
  """Imports ``scipy.sparse``; an ImportError says how to install it."""
  with needed_by("a graph", "scipy"):
    import scipy.sparse
  return scipy.sparse


def digest(
  graphs: Mapping[str, Iterable[Mapping[str, np.ndarray]]],
  class_names: Iterable[str] = (),
) -> str:
  """Returns a fingerprint of the members of graphs.

  Args:
    graphs: the members of the graphs of each split, arrays by name.
    class_names: of their labels.
  """
  content = hashlib.sha256()
  for name in class_names:
    content.update(f"{name!r}\n".encode())
  for key, records in sorted(graphs.items()):
    content.update(f"{key}\n".encode())
    for members in records:
      content.update(f"{len(members)}\n".encode())
      for name, values in sorted(members.items()):
        content.update(f"{name} {values.dtype} {values.shape}\n".encode())
        content.update(np.ascontiguousarray(values).tobytes())
  return f"sha256:{content.hexdigest()}"


def both_directions(
  edges: np.ndarray, *, num_nodes: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
  """Makes senders and receivers of undirected edges.

  Args:
    edges: integers [m, 2], each edge in any direction. Repeated edges count
      once. Self loops are dropped, since the layers add one to each node.
    num_nodes: ends must be in [0, num_nodes).
    where: source and field, for the message.

  Returns:
    senders and receivers, int32 [e], ordered by receiver, then sender.

  Raises:
    ValueError: for edges of another form, or one that names a missing node.
  """
  if edges.ndim != 2 or edges.shape[1] != 2:
    raise ValueError(f"{where} must be [m, 2], it is {list(edges.shape)}")
  if edges.dtype.kind not in "iu":
    raise ValueError(f"{where} is {edges.dtype}, edges must be integers")
  outside = np.flatnonzero(((edges < 0) | (edges >= num_nodes)).any(axis=1))
  if outside.size:
    i = outside[0]
    raise ValueError(
      f"{where}: edge {i} joins the nodes {edges[i, 0]} and {edges[i, 1]}, but"
      f" there are {num_nodes} nodes, numbered from 0"
    )
  edges = edges[edges[:, 0] != edges[:, 1]].astype(np.int64)
  ends = np.concatenate([edges, edges[:, ::-1]])
  codes = np.unique(ends[:, 1] * num_nodes + ends[:, 0])
  receivers, senders = np.divmod(codes, max(num_nodes, 1))
  return senders.astype(np.int32), receivers.astype(np.int32)


def normalize_rows(features: Any, *, where: str) -> Any:
  """Divides each row by the sum of its absolute values; zeros stay zeros.

  Args:
    features: float32 [n, d], an array or a sparse one of scipy.
    where: names the source, for the message.

  Raises:
    ValueError: a sum, or its reciprocal, is not finite; names the node.
  """
  with np.errstate(over="ignore"):
    sums = np.asarray(abs(features).sum(axis=1), np.float32).ravel()
  bad = np.flatnonzero(~(sums < np.inf) | ((sums > 0) & (sums < _LEAST_SUM)))
  if bad.size:
    raise ValueError(
      f"{where}: the absolute features of node {bad[0]} sum to"
      f" {sums[bad[0]]:.4g} (as float32), by which they cannot be divided"
      " (data.row_normalize)"
    )
  factors = np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
  if isinstance(features, np.ndarray):
    return features * factors[:, None]
  return (sparse().diags_array(factors) @ features).tocsr()


def dense(features: Any) -> np.ndarray:
  """Returns features as an array float32 [n, d]."""
  if isinstance(features, np.ndarray):
    return features
  return features.toarray()


def propagate(graph: Graph, *, steps: int) -> np.ndarray:
  """Multiplies features by the normalized adjacency matrix, on the host.

  ``message_passing.propagate`` in ``layers`` does the same on a device. This
  function is reproducible bit for bit, unlike sums on a GPU.

  Args:
    graph: features [n, d].
    steps: number of products.

  Returns:
    float32 [n, d], dense.

  Raises:
    ValueError: a feature becomes infinite; names the node.
  """
  n = graph.num_nodes
  degrees = np.bincount(graph.receivers, minlength=n) + 1.0  # with a self loop
  factors = sparse().diags_array(degrees**-0.5)
  ones = np.ones(graph.num_edges)
  adjacency = sparse().csr_array(
    (ones, (graph.receivers, graph.senders)), shape=(n, n)
  )
  adjacency = factors @ (adjacency + sparse().eye_array(n)) @ factors
  adjacency = adjacency.astype(np.float32).tocsr()
  nodes = dense(graph.features)
  with np.errstate(over="ignore"):
    for _ in range(steps):
      nodes = adjacency @ nodes
  bad = np.argwhere(~np.isfinite(nodes))
  if bad.size:
    node, feature = bad[0]
    raise ValueError(
      f"feature {feature} of node {node} is {nodes[node, feature]} after it was"
      f" propagated over {steps} steps (as float32); features must be smaller"
    )
  return nodes


def degree_features(
  receivers: np.ndarray, *, num_nodes: int, max_degree: int
) -> np.ndarray:
  """Returns one-hot degrees as features, float32 [n, max_degree + 1].

  Larger degrees count as ``max_degree``.
  """
  degrees = np.bincount(receivers, minlength=num_nodes)
  columns = np.eye(max_degree + 1, dtype=np.float32)
  return columns[np.minimum(degrees, max_degree)]
