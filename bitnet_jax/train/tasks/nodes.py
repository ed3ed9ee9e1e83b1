"""Classification of nodes: one graph, of which some labels are known."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.data import graphs
from bitnet_jax.data.splits import Cuts
from bitnet_jax.data.views import nodes
from bitnet_jax.train.config.settings import (
  DataOptions,
  Kind,
  Settings,
  Site,
  check_least,
)
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.losses import check_smoothing, cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeOptions(DataOptions):
  """The group ``data`` of the task "node_classification".

  The example of a batch is the whole graph, so that ``batch_size`` is 1 and an
  epoch is one update.

  Attributes:
    source: "embedded:karate", "file:PATH.npz" or "tfds:planetoid/NAME".
    num_classes: checked against the labels; ``None``: as the source says.
    train_per_class: training nodes of a class, for a source without splits.
    valid_fraction: share of the other nodes, for a source without splits; what
      is left is for testing.
    split_seed: seed of this draw.
    row_normalize: whether the features of a node are divided by their sum.
    data_dir: where TFDS looks.
  """

  num_classes: int | None
  train_per_class: int | None
  valid_fraction: float
  split_seed: int
  row_normalize: bool
  data_dir: str | None

  def __post_init__(self):
    super().__post_init__()
    check_least("data", self, num_classes=1, train_per_class=1, split_seed=0)
    for field in ("batch_size", "eval_batch_size"):
      value = getattr(self, field)
      if value not in (1, None):
        raise ValueError(
          f"data.{field} is {value}; it must be 1: the whole graph is one"
          " example"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GnnOptions:
  """The group ``task`` of graphs and their nodes.

  Attributes:
    label_smoothing: see ``losses.cross_entropy``; in training only.
  """

  label_smoothing: float

  def __post_init__(self):
    check_smoothing(self.label_smoothing)


@dataclasses.dataclass(frozen=True)
class GnnClassification:
  """Softmax classification of nodes or graphs; metrics "loss", "accuracy".

  A batch has "nodes", mostly "senders" and "receivers", of graphs "n_node",
  see ``Gnn``; and "labels" and "mask" [batch, outputs].

  Attributes:
    model: a ``Gnn``.
    example: a batch, or the shapes and dtypes of one.
    label_smoothing: see ``losses.cross_entropy``; in training only.
  """

  model: nn.Module
  example: Mapping[str, Any]
  label_smoothing: float

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """See ``base.Task``."""
    zeros = [
      None if leaf is None else jnp.zeros(leaf.shape, leaf.dtype)
      for leaf in inputs_of(self.example)
    ]
    return self.model.init(key, *zeros)

  def weight(self, batch: base.Batch) -> jax.Array:
    """Returns the number of labels that count."""
    return jnp.sum(base.example_mask(batch))

  def totals(
    self,
    params: Any,
    variables: Any,
    batch: base.Batch,
    *,
    key: jax.Array,
    deterministic: bool,
    strength: jax.Array | None,
  ) -> tuple[base.Totals, Any]:
    """See ``base.Task``."""
    logits, variables = base.apply(
      self.model,
      params,
      variables,
      *inputs_of(batch),
      key=key,
      deterministic=deterministic,
      strength=strength,
    )
    losses = cross_entropy(
      logits,
      batch["labels"],
      label_smoothing=0.0 if deterministic else self.label_smoothing,
    )
    hits = jnp.argmax(logits, -1) == batch["labels"]
    mask = base.example_mask(batch)
    totals = {
      "loss": jnp.sum(losses * mask),
      "accuracy": jnp.sum(hits * mask),
      "weight": jnp.sum(mask),
    }
    return totals, variables


def inputs_of(batch: Mapping[str, Any]) -> tuple[Any, ...]:
  """Returns the arguments of a ``Gnn``."""
  names = ("nodes", "senders", "receivers", "n_node")
  return tuple(batch.get(name) for name in names)


def shapes_of(batch: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shapes and dtypes of a batch."""
  return {k: jax.ShapeDtypeStruct(a.shape, a.dtype) for k, a in batch.items()}


def check_pooling(settings: Settings, *, of_graphs: bool) -> None:
  """Raises a ValueError for a pooling that does not suit the task."""
  pooling = settings.model.sizes["pooling"]
  if of_graphs == (pooling == "none"):
    raise ValueError(
      f"model.pooling is {pooling!r}, but {settings.task.name} needs"
      f" {'mean or sum' if of_graphs else 'none'}"
    )


def build(settings: Settings, site: Site) -> base.Problem:
  """Builds data, model and task; see ``base.Problem``.

  Nodes and edges are filled up for the devices to have equally many.
  """
  data: NodeOptions = settings.data
  check_pooling(settings, of_graphs=False)
  dataset = nodes.load(
    data.source,
    Cuts(
      valid_fraction=data.valid_fraction,
      split_seed=data.split_seed,
      data_dir=data.data_dir,
    ),
    train_per_class=data.train_per_class,
    num_classes=data.num_classes,
    row_normalize=data.row_normalize,
  )
  model = base.make_model(settings, num_classes=dataset.num_classes)
  sizes = settings.model.sizes
  if sizes["kind"] == "sgc":
    batches = _batches_of_nodes(dataset, steps=sizes["steps"])
  else:
    batches = _batches_of_the_graph(dataset)
  batches = {
    split: _filled(batch, site.shards) for split, batch in batches.items()
  }
  example = shapes_of(batches["train"])
  return base.Problem(
    task=GnnClassification(
      model, example, settings.task.options.label_smoothing
    ),
    layers=base.find_layers(settings, model, *inputs_of(example)),
    splits=tuple(batches),
    num_examples=1,
    fingerprint=dataset.fingerprint,
    metric_names=("accuracy", "loss"),
    train_batch=lambda step: batches["train"],
    eval_batches=lambda split: [batches[split]],
    finish=base.finish_averages,
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


def _filled(batch: Mapping[str, np.ndarray], shards: int):
  """Fills nodes and edges up to multiples of ``shards``.

  Edges of filling go from the last node, which is filling too, to itself.
  """
  nodes = batch["nodes"].shape[1]
  edges = batch["senders"].shape[1] if "senders" in batch else 0
  more_nodes, more_edges = -nodes % shards, -edges % shards
  if more_edges and not more_nodes:
    more_nodes = shards
  filled = {}
  for name, array in batch.items():
    of_edges = name in ("senders", "receivers")
    fill = [(0, 0)] * array.ndim
    fill[1] = (0, more_edges if of_edges else more_nodes)
    last = nodes + more_nodes - 1
    filled[name] = np.pad(array, fill, constant_values=last if of_edges else 0)
  return filled


KIND = Kind(NodeOptions, GnnOptions, build, full_graph=True)
