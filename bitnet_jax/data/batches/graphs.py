"""Batches of graphs, padded to a budget of nodes and edges.

A batch has parts, so that it can be split over devices. A part is one array of
nodes and one of edges, in which its graphs follow one another. To fit all parts
into one size with little padding, the graphs of a split are sorted by size and
divided into as many rows as a batch has graphs. A batch takes one random graph
from each row. So an epoch goes once through all graphs, and the size of the
largest possible batch is known in advance.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from bitnet_jax.data import graphs
from bitnet_jax.data.batches.order import Batch
from bitnet_jax.data.views.graph_sets import GraphSplit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
  """Sizes of the arrays of one part of a batch.

  Attributes:
    nodes: at least one more than the nodes of any part: the last is padding.
    edges: at least as many as the edges of any part, in both directions.
  """

  nodes: int
  edges: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """How the graphs of a split form batches.

  Attributes:
    batch_size: graphs in a batch; batches may have fewer, evenly spread.
    parts: number of parts of a batch; divides ``batch_size``.
  """

  batch_size: int
  parts: int

  def rows(self, split: GraphSplit) -> np.ndarray:
    """Returns numbers of graphs, [batch_size, batches], -1 for none.

    The graphs of a row are of about one size; the first row has the largest.
    """
    sizes = [(g.num_nodes, g.num_edges) for g in split.graphs]
    nodes, edges = np.array(sizes).T
    order = np.lexsort((-edges, -nodes))
    batches = -(-len(order) // self.batch_size)
    rows = np.full(self.batch_size * batches, -1)
    rows[: len(order)] = order
    return rows.reshape(self.batch_size, batches)

  def budget(self, splits: Mapping[str, GraphSplit]) -> Budget:
    """Returns the least budget for all batches of some splits."""
    most = np.zeros(2, int)
    for split in splits.values():
      sizes = [(g.num_nodes, g.num_edges) for g in split.graphs] + [(0, 0)]
      largest = np.array(sizes)[self.rows(split)].max(axis=1)
      parts = largest.reshape(-1, self.parts, 2).sum(axis=0)
      most = np.maximum(most, parts.max(axis=0))
    return Budget(nodes=int(most[0]) + 1, edges=max(int(most[1]), 1))

  def choose_budget(
    self,
    splits: Mapping[str, GraphSplit],
    *,
    nodes: int | None,
    edges: int | None,
  ) -> Budget:
    """Returns the requested budget, after checking that all batches fit.

    Args:
      splits: splits of graphs.
      nodes: budget of nodes in a part; ``None`` takes the least possible.
      edges: budget of edges in a part, likewise.

    Raises:
      ValueError: a graph, or a batch, is larger; names the graph and its size.
    """
    least = self.budget(splits)
    for what, asked, needed in (
      ("nodes", nodes, least.nodes),
      ("edges", edges, least.edges),
    ):
      if asked is None or asked >= needed:
        continue
      room = asked - (what == "nodes")
      for split in splits.values():
        for name, graph in zip(split.names, split.graphs, strict=True):
          size = getattr(graph, f"num_{what}")
          if size > room:
            raise ValueError(
              f"the graph {name} has {size} {what}, but the budget of a batch"
              f" is {asked} (of which padding takes {asked - room})"
            )
      raise ValueError(
        f"the budget of a batch is {asked} {what}, but its"
        f" {self.batch_size // self.parts} graphs may need {needed}; raise the"
        " budget, or lower the batch size"
      )
    return Budget(nodes=nodes or least.nodes, edges=edges or least.edges)


def train_batches(
  split: GraphSplit,
  layout: Layout,
  budget: Budget,
  *,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Callable[[int], Batch]:
  """Returns a function from a step to its batch, endless and without state.

  A batch depends on (seed, step, process) only, and its graphs do not depend
  on the number of parts.

  Args:
    split: at least one graph.
    layout: how batches are made of it.
    budget: see `Layout.choose_budget`.
    seed: not negative.
    process_index: this process, in [0, process_count).
    process_count: number of processes that share the parts of a batch.

  Returns:
    A function; see `assemble` for a batch. The batches of all processes, put
    together in their order, are the batch of a single one.

  Raises:
    ValueError: an argument is out of range.
  """
  parts = _parts(layout, process_index, process_count)
  rows = layout.rows(split)

  @functools.lru_cache(maxsize=2)
  def epoch_rows(epoch):
    return np.random.default_rng((seed, epoch)).permuted(rows, axis=1)

  def batch_at(step: int) -> Batch:
    epoch, i = divmod(step, rows.shape[1])
    chosen = epoch_rows(epoch)[:, i].reshape(-1, layout.parts)
    return assemble(split, chosen.T[parts], budget)

  return batch_at


def eval_batches(
  split: GraphSplit,
  layout: Layout,
  budget: Budget,
  *,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Batch]:
  """Yields the batches that go through a split once, see `train_batches`."""
  parts = _parts(layout, process_index, process_count)
  for column in layout.rows(split).T:
    yield assemble(split, column.reshape(-1, layout.parts).T[parts], budget)


def _parts(layout, process_index, process_count):
  """Returns the parts of a process."""
  if layout.batch_size % layout.parts or layout.parts % process_count:
    raise ValueError(
      f"a batch of {layout.batch_size} graphs does not split into"
      f" {layout.parts} parts for {process_count} processes"
    )
  size = layout.parts // process_count
  return slice(process_index * size, (process_index + 1) * size)


def assemble(split: GraphSplit, chosen: np.ndarray, budget: Budget) -> Batch:
  """Concatenates graphs into the arrays of a batch.

  Args:
    split: of the graphs.
    chosen: numbers of graphs [parts, graphs], -1 for none.
    budget: sizes of the arrays.

  Returns:
    "nodes" float32 [parts, n, d]; "senders" and "receivers" int32 [parts, e],
    padding being edges from the last node to itself; "n_node" int32 [parts,
    graphs], the nodes of each graph; "labels" int32 and "mask" float32 [parts,
    graphs]. All three are 0 where there is no graph.
  """
  parts, places = chosen.shape
  width = split.graphs[0].features.shape[1]
  last = budget.nodes - 1
  batch = {
    "nodes": np.zeros((parts, budget.nodes, width), np.float32),
    "senders": np.full((parts, budget.edges), last, np.int32),
    "receivers": np.full((parts, budget.edges), last, np.int32),
    "n_node": np.zeros((parts, places), np.int32),
    "labels": np.zeros((parts, places), np.int32),
    "mask": (chosen >= 0).astype(np.float32),
  }
  for part in range(parts):
    node = edge = 0
    for place in np.flatnonzero(chosen[part] >= 0):
      number = chosen[part, place]
      graph = split.graphs[number]
      nodes = slice(node, node + graph.num_nodes)
      edges = slice(edge, edge + graph.num_edges)
      batch["nodes"][part, nodes] = graphs.dense(graph.features)
      batch["senders"][part, edges] = graph.senders + node
      batch["receivers"][part, edges] = graph.receivers + node
      batch["n_node"][part, place] = graph.num_nodes
      batch["labels"][part, place] = split.labels[number]
      node, edge = nodes.stop, edges.stop
  return batch
