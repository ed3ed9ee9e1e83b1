"""Batches of one graph, which every process has and devices split by nodes."""

from collections.abc import Mapping

import numpy as np

from bitnet_jax.data import graphs
from bitnet_jax.data.batches.order import Batch
from bitnet_jax.data.views.nodes import NodeDataset


def make_batches(
  dataset: NodeDataset, *, propagation_steps: int | None, shards: int
) -> dict[str, Batch]:
  """Returns the one batch of each split.

  Nodes and edges are padded to multiples of ``shards``.

  Args:
    dataset: the graph, and the nodes of each split.
    propagation_steps: of the features, for a model that takes nodes only, which
      are those of the split; ``None`` for the graph, with a mask for the nodes
      of the split.
    shards: number of parts into which devices split a batch.

  Returns:
    "nodes", "labels" and "mask", and for the graph "senders" and "receivers";
    the first axis, of graphs, has length 1.
  """
  if propagation_steps is None:
    batches = _of_graph(dataset)
  else:
    batches = _of_nodes(dataset, propagation_steps)
  return {split: _padded(batch, shards) for split, batch in batches.items()}


def _of_nodes(dataset: NodeDataset, steps: int) -> dict[str, Batch]:
  # Propagated once, and not in each training step.
  features = graphs.propagate(dataset.graph, steps=steps)
  return {
    split: {
      "nodes": features[None, rows],
      "labels": dataset.labels[None, rows],
      "mask": np.ones((1, len(rows)), np.float32),
    }
    for split, rows in dataset.splits.items()
  }


def _of_graph(dataset: NodeDataset) -> dict[str, Batch]:
  graph = dataset.graph
  shared = {
    "nodes": graphs.dense(graph.features)[None],
    "senders": graph.senders[None],
    "receivers": graph.receivers[None],
    "labels": dataset.labels[None],
  }
  numbers = np.arange(graph.num_nodes)
  return {
    split: shared | {"mask": np.isin(numbers, rows)[None].astype(np.float32)}
    for split, rows in dataset.splits.items()
  }


def _padded(batch: Mapping[str, np.ndarray], shards: int) -> Batch:
  """Pads nodes and edges; padding edges join the last node, which is padding,
  to itself.
  """
  nodes = batch["nodes"].shape[1]
  edges = batch["senders"].shape[1] if "senders" in batch else 0
  more_nodes, more_edges = -nodes % shards, -edges % shards
  if more_edges and not more_nodes:
    more_nodes = shards
  padded = {}
  for name, array in batch.items():
    more, value = more_nodes, 0
    if name in ("senders", "receivers"):
      more, value = more_edges, nodes + more_nodes - 1
    width = [(0, 0), (0, more), *[(0, 0)] * (array.ndim - 2)]
    padded[name] = np.pad(array, width, constant_values=value)
  return padded
