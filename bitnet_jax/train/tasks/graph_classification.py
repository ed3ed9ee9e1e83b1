"""Classification of graphs."""

import dataclasses

from bitnet_jax.data.batches import graphs as graph_batches
from bitnet_jax.data.splits import Cuts
from bitnet_jax.data.views import graph_sets
from bitnet_jax.train.config.settings import (
  DataOptions,
  Kind,
  Settings,
  Site,
  check_least,
)
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.nodes import (
  GnnClassification,
  GnnOptions,
  check_pooling,
  inputs_of,
  shapes_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphOptions(DataOptions):
  """The group ``data`` of the task "graph_classification".

  Attributes:
    source: "embedded:graphs" or "file:FOLDER".
    num_classes: checked against the labels; ``None``: as the source says.
    valid_fraction: share of the training split, for a source without "valid".
    test_fraction: share of the training split, for a source without "test".
    split_seed: seed of these cuts.
    max_degree: largest degree that has a feature, for graphs without features.
    row_normalize: whether the features of a node are divided by their sum.
    node_budget: size of the padded array of nodes on a device; ``None``: what
      the largest batch needs, which is one more than its nodes.
    edge_budget: size of that of edges, both directions counted; likewise.
  """

  num_classes: int | None
  valid_fraction: float
  test_fraction: float
  split_seed: int
  max_degree: int
  row_normalize: bool
  node_budget: int | None
  edge_budget: int | None

  def __post_init__(self):
    super().__post_init__()
    check_least(
      "data",
      self,
      num_classes=1,
      split_seed=0,
      max_degree=0,
      node_budget=2,
      edge_budget=1,
    )


def build(settings: Settings, site: Site) -> base.Problem:
  """Builds data, model and task; see ``base.Problem``."""
  data: GraphOptions = settings.data
  check_pooling(settings, of_graphs=True)
  dataset = graph_sets.load(
    data.source,
    Cuts(
      valid_fraction=data.valid_fraction,
      test_fraction=data.test_fraction,
      split_seed=data.split_seed,
    ),
    max_degree=data.max_degree,
    num_classes=data.num_classes,
    row_normalize=data.row_normalize,
  )
  of_training = graph_batches.Layout(
    batch_size=data.batch_size,
    parts=site.shards * settings.optim.accumulate_steps,
  )
  of_evaluation = graph_batches.Layout(
    batch_size=data.rows_of_evaluation, parts=site.shards
  )
  budgets = {"nodes": data.node_budget, "edges": data.edge_budget}
  train = {"train": dataset.splits["train"]}
  eval_budget = of_evaluation.choose_budget(dataset.splits, **budgets)
  _, batches_per_epoch = of_training.rows(train["train"]).shape
  train_batch = graph_batches.train_batches(
    train["train"],
    of_training,
    of_training.choose_budget(train, **budgets),
    seed=settings.seed,
    **site.part,
  )
  model = base.make_model(settings, num_classes=dataset.num_classes)
  example = shapes_of(train_batch(0))
  return base.Problem(
    task=GnnClassification(
      model, example, settings.task.options.label_smoothing
    ),
    layers=base.find_layers(settings, model, *inputs_of(example)),
    splits=tuple(dataset.splits),
    num_examples=len(train["train"].labels),
    fingerprint=dataset.fingerprint,
    metric_names=("accuracy", "loss"),
    train_batch=train_batch,
    eval_batches=lambda split: graph_batches.eval_batches(
      dataset.splits[split], of_evaluation, eval_budget, **site.part
    ),
    finish=base.finish_averages,
    batches_per_epoch=batches_per_epoch,
  )


KIND = Kind(GraphOptions, GnnOptions, build)
