"""Classification of nodes: one graph, of which some labels are known."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bitnet_jax.data.batches import full_graph
from bitnet_jax.data.batches.order import Batch
from bitnet_jax.data.views import nodes
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.classifier import Classifier
from bitnet_jax.train.tasks.facts import DataFacts, SplitFacts, specs_of
from bitnet_jax.train.tasks.losses import LossOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeOptions(groups.DataOptions):
  """The group ``data`` of the task "node_classification".

  The example of a batch is the whole graph, so that ``batch_size`` is 1 and an
  epoch is one update. For a source without splits ``valid_fraction`` is that of
  the nodes that are not for training; the rest are for testing.

  Attributes:
    source: "embedded:karate", "file:PATH.npz" or "tfds:planetoid/NAME".
    num_classes: checked against the labels; ``None``: that of the source.
    train_per_class: training nodes of a class, for a source without splits.
    row_normalize: whether the features of a node are divided by their sum.
  """

  num_classes: int | None
  train_per_class: int | None
  row_normalize: bool
  data_dir: str | None

  def __post_init__(self):
    super().__post_init__()
    groups.check_least("data", self, num_classes=1, train_per_class=1)
    for field in ("batch_size", "eval_batch_size"):
      value = getattr(self, field)
      if value not in (1, None):
        raise ValueError(
          f"data.{field} is {value}; it must be 1: the whole graph is one"
          " example"
        )


class GnnClassification(Classifier):
  """Softmax classification of nodes or graphs; see ``Classifier``.

  A batch has "nodes", mostly "senders" and "receivers", of graphs "n_node",
  see ``Gnn``; and "labels" and "mask" [batch, outputs].
  """

  def inputs(self, batch: Mapping[str, Any]) -> base.Inputs:
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


def load_graph(settings: Settings) -> nodes.NodeDataset:
  """Loads the graph of a config."""
  data: NodeOptions = settings.data
  return nodes.load(
    data.source,
    data.cuts(),
    train_per_class=data.train_per_class,
    num_classes=data.num_classes,
    row_normalize=data.row_normalize,
  )


def make_batches(
  settings: Settings, dataset: nodes.NodeDataset, shards: int
) -> dict[str, Batch]:
  """Returns the one batch of each split, see ``full_graph.make_batches``."""
  sizes = settings.model.sizes
  steps = sizes["steps"] if sizes["kind"] == "sgc" else None
  return full_graph.make_batches(
    dataset, propagation_steps=steps, shards=shards
  )


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the graph; see ``TaskSpec``."""
  check_pooling(settings, of_graphs=False)
  dataset = load_graph(settings)
  batches = make_batches(settings, dataset, context.shards)
  return base.TaskData(
    facts=DataFacts(
      fingerprint=dataset.fingerprint,
      splits={split: SplitFacts(examples=1) for split in batches},
      example=specs_of(batches["train"], rows=None),
      num_classes=dataset.num_classes,
      class_names=dataset.class_names,
    ),
    train_batch=lambda step: batches["train"],
    reseed=lambda seed: lambda step: batches["train"],
    eval_batches=lambda split: [batches[split]],
  )


SPEC = TaskSpec(
  NodeOptions, LossOptions, load, GnnClassification, ("gnn",), full_graph=True
)
