"""Predictions for whole graphs, and for the nodes of the graph of a run."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax.data.batches import graphs as graph_batches
from bitnet_jax.data.graphs import Graph
from bitnet_jax.data.views import graph_sets
from bitnet_jax.data.views.nodes import NodeDataset
from bitnet_jax.programs.predicting.answers import Answer
from bitnet_jax.programs.predicting.families import Compute, Family
from bitnet_jax.train.devices.mesh import batch_shards
from bitnet_jax.train.tasks import nodes


class Graphs(Family):
  """Classification of graphs."""

  @property
  def reads(self) -> str:
    """See ``Family``."""
    return "graphs"

  def encode(self, value: Mapping[str, np.ndarray]) -> tuple[Graph, str]:
    """See ``Family``."""
    data = self.found.settings.data
    graph = graph_sets.make_graph(
      value,
      where="the graph",
      max_degree=data.max_degree,
      row_normalize=data.row_normalize,
    )
    width = self.found.task.facts.example["nodes"].shape[-1]
    if graph.features.shape[1] != width:
      raise ValueError(
        f"it has {graph.features.shape[1]} features a node; the model takes"
        f" {width}"
      )
    return graph, ""

  def answer(
    self, examples: Sequence[Graph], size: int, compute: Compute
  ) -> list[Answer]:
    """See ``Family``."""
    count, parts = len(examples), batch_shards(self.found.mesh)
    split = graph_sets.GraphSplit(
      graphs=list(examples),
      labels=np.zeros(count, np.int32),
      names=[""] * count,
    )
    # The graphs of each part of a batch, -1 for none.
    chosen = np.where(np.arange(size) < count, np.arange(size), -1)
    chosen = chosen.reshape(-1, parts).T
    budget = graph_batches.Budget(
      nodes=_room(examples, chosen, "num_nodes") + 1,
      edges=_room(examples, chosen, "num_edges"),
    )
    outputs = compute(graph_batches.assemble(split, chosen, budget))
    return self.classes(outputs.swapaxes(0, 1).reshape(size, -1), count)


def _room(examples: Sequence[Graph], chosen: np.ndarray, what: str) -> int:
  """Returns a power of two that is enough for each part of a batch."""
  sizes = np.array([*(getattr(graph, what) for graph in examples), 0])
  most = int(sizes[chosen].sum(axis=1).max())  # The last one stands for none.
  return 1 << max(most, 1).bit_length()


class Nodes(Family):
  """Classification of the nodes of the graph that the run was trained on."""

  @property
  def reads(self) -> str:
    """See ``Family``."""
    return "nodes"

  @functools.cached_property
  def graph(self) -> NodeDataset:
    """The graph, read from the data of the run.

    Raises:
      FileNotFoundError: if the data are not there.
      ValueError: if they are not those of the run.
    """
    settings, facts = self.found.settings, self.found.task.facts
    source = settings.data.source
    try:
      graph = nodes.load_graph(settings)
    except FileNotFoundError as error:
      raise FileNotFoundError(
        f"{error}; a model of nodes needs the graph that it was trained on"
      ) from error
    if graph.fingerprint != facts.fingerprint:
      raise ValueError(
        f"data.source is {source!r}, whose content is not what the run was"
        f" trained on: {graph.fingerprint}, not {facts.fingerprint}"
      )
    return graph

  def node_names(self) -> tuple[str, ...]:
    """Returns a name for each node: its number where there is no other."""
    graph = self.graph
    return graph.names or (*map(str, range(graph.graph.num_nodes)),)

  def encode(self, value: int) -> tuple[int, str]:
    """See ``Family``."""
    return value, ""

  def answer(
    self, examples: Sequence[int], size: int, compute: Compute
  ) -> list[Answer]:
    """See ``Family``."""
    del size
    if "outputs" not in self._kept:
      everything = {"train": np.arange(self.graph.graph.num_nodes)}
      dataset = dataclasses.replace(self.graph, splits=everything)
      shards = batch_shards(self.found.mesh)
      batches = nodes.make_batches(self.found.settings, dataset, shards)
      self._kept["outputs"] = compute(batches["train"])[0]
    outputs = self._kept["outputs"][np.asarray(examples)]
    return self.classes(outputs, len(examples))

  @functools.cached_property
  def _kept(self) -> dict[str, Any]:
    """The outputs of the model for all nodes, once they are computed."""
    return {}
