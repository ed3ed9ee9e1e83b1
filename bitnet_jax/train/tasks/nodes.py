"""Classification of nodes: one graph, of which some labels are known."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitnet_jax.data import graphs
from bitnet_jax.data.views import nodes
from bitnet_jax.train.config.settings import (
  DataOptions,
  RunContext,
  Settings,
  TaskSpec,
  check_least,
)
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.classifier import Classifier
from bitnet_jax.train.tasks.facts import DataFacts, SplitFacts, specs_of
from bitnet_jax.train.tasks.losses import LossOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeOptions(DataOptions):
  """The group ``data`` of the task "node_classification".

  The example of a batch is the whole graph, so that ``batch_size`` is 1 and an
  epoch is one update. For a source without splits ``valid_fraction`` is that of
  the nodes that are not for training; the rest are for testing.

  Attributes:
    source: "embedded:karate", "file:PATH.npz" or "tfds:planetoid/NAME".
    num_classes: checked against the labels; ``None``: as the source says.
    train_per_class: training nodes of a class, for a source without splits.
    row_normalize: whether the features of a node are divided by their sum.
  """

  num_classes: int | None
  train_per_class: int | None
  row_normalize: bool
  data_dir: str | None

  def __post_init__(self):
    super().__post_init__()
    check_least("data", self, num_classes=1, train_per_class=1)
    for field in ("batch_size", "eval_batch_size"):
      value = getattr(self, field)
      if value not in (1, None):
        raise ValueError(
          f"data.{field} is {value}; it must be 1: the whole graph is one"
          " example"
        )


@dataclasses.dataclass(frozen=True)
class GnnClassification(Classifier):
  """Softmax classification of nodes or graphs; see ``Classifier``.

  A batch has "nodes", mostly "senders" and "receivers", of graphs "n_node",
  see ``Gnn``; and "labels" and "mask" [batch, outputs].
  """

  def inputs(
    self, batch: Mapping[str, Any]
  ) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """See ``Supervised``."""
    names = ("nodes", "senders", "receivers", "n_node")
    return tuple(batch.get(name) for name in names), {}


def check_pooling(settings: Settings, *, of_graphs: bool) -> None:
  """Raises a ValueError for a pooling that does not suit the task."""
  pooling = settings.model.sizes["pooling"]
  if of_graphs == (pooling == "none"):
    raise ValueError(
      f"model.pooling is {pooling!r}, but {settings.task.name} needs"
      f" {'mean or sum' if of_graphs else 'none'}"
    )


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the graph; see ``TaskSpec``.

  Nodes and edges are padded, so that all devices have equally many.
  """
  data: NodeOptions = settings.data
  check_pooling(settings, of_graphs=False)
  dataset = nodes.load(
    data.source,
    data.cuts(),
    train_per_class=data.train_per_class,
    num_classes=data.num_classes,
    row_normalize=data.row_normalize,
  )
  sizes = settings.model.sizes
  if sizes["kind"] == "sgc":
    batches = _batches_of_nodes(dataset, steps=sizes["steps"])
  else:
    batches = _batches_of_the_graph(dataset)
  batches = {
    split: _padded(batch, context.shards) for split, batch in batches.items()
  }
  return base.TaskData(
    facts=DataFacts(
      fingerprint=dataset.fingerprint,
      splits={split: SplitFacts(examples=1) for split in batches},
      example=specs_of(batches["train"], rows=None),
      num_classes=dataset.num_classes,
    ),
    train_batch=lambda step: batches["train"],
    eval_batches=lambda split: [batches[split]],
  )


def _batches_of_nodes(dataset: nodes.NodeDataset, *, steps: int):
  """The nodes of each split, with propagated features and without edges.

  The whole of what "sgc" needs: computed once, and not in each step.
  """
  features = graphs.propagate(dataset.graph, steps=steps)
  return {
    key: {
      "nodes": features[None, rows],
      "labels": dataset.labels[None, rows],
      "mask": np.ones((1, len(rows)), np.float32),
    }
    for key, rows in dataset.splits.items()
  }


def _batches_of_the_graph(dataset: nodes.NodeDataset):
  """The whole graph for each split, with its nodes in the mask."""
  graph = dataset.graph
  shared = {
    "nodes": graphs.dense(graph.features)[None],
    "senders": graph.senders[None],
    "receivers": graph.receivers[None],
    "labels": dataset.labels[None],
  }
  numbers = np.arange(graph.num_nodes)
  return {
    key: shared | {"mask": np.isin(numbers, rows)[None].astype(np.float32)}
    for key, rows in dataset.splits.items()
  }


def _padded(batch: Mapping[str, np.ndarray], shards: int):
  """Pads nodes and edges to multiples of ``shards``.

  Padding edges go from the last node, which is padding too, to itself.
  """
  nodes = batch["nodes"].shape[1]
  edges = batch["senders"].shape[1] if "senders" in batch else 0
  more_nodes, more_edges = -nodes % shards, -edges % shards
  if more_edges and not more_nodes:
    more_nodes = shards
  padded = {}
  for name, array in batch.items():
    of_edges = name in ("senders", "receivers")
    width = [(0, 0)] * array.ndim
    width[1] = (0, more_edges if of_edges else more_nodes)
    last = nodes + more_nodes - 1
    padded[name] = np.pad(array, width, constant_values=last * of_edges)
  return padded


SPEC = TaskSpec(
  NodeOptions, LossOptions, load, GnnClassification, full_graph=True
)
