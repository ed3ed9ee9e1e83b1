"""Classification of graphs."""

import dataclasses
import functools

from bitnet_jax.data.batches import graphs as graph_batches
from bitnet_jax.data.views import graph_sets
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.facts import DataFacts, sizes_of, specs_of
from bitnet_jax.train.tasks.losses import LossOptions
from bitnet_jax.train.tasks.nodes import GnnClassification, check_pooling


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphOptions(groups.DataOptions):
  """The group ``data`` of the task "graph_classification".

  Attributes:
    source: "embedded:graphs" or "file:FOLDER".
    num_classes: checked against the labels; ``None``: that of the source.
    max_degree: largest degree that has a feature, for graphs without features.
    row_normalize: whether the features of a node are divided by their sum.
    node_budget: size of the padded array of nodes on a device; ``None``: what
      the largest batch needs, which is one more than its nodes.
    edge_budget: size of that of edges, both directions counted; likewise.
  """

  num_classes: int | None
  test_fraction: float
  max_degree: int
  row_normalize: bool
  node_budget: int | None
  edge_budget: int | None

  def __post_init__(self):
    super().__post_init__()
    groups.check_least(
      "data",
      self,
      num_classes=1,
      max_degree=0,
      node_budget=2,
      edge_budget=1,
    )


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the graphs; see ``TaskSpec``."""
  data: GraphOptions = settings.data
  check_pooling(settings, of_graphs=True)
  dataset = graph_sets.load(
    data.source,
    data.cuts(),
    max_degree=data.max_degree,
    num_classes=data.num_classes,
    row_normalize=data.row_normalize,
  )
  of_training = graph_batches.Layout(
    batch_size=data.batch_size,
    parts=context.shards * settings.optim.accumulate_steps,
  )
  of_evaluation = graph_batches.Layout(
    batch_size=data.rows_of_evaluation, parts=context.shards
  )
  budgets = {"nodes": data.node_budget, "edges": data.edge_budget}
  train = {"train": dataset.splits["train"]}
  eval_budget = of_evaluation.choose_budget(dataset.splits, **budgets)
  _, batches_per_epoch = of_training.rows(train["train"]).shape
  train_batches = functools.partial(
    graph_batches.train_batches,
    train["train"],
    of_training,
    of_training.choose_budget(train, **budgets),
    **context.part,
  )
  train_batch = train_batches(seed=settings.seed)
  return base.TaskData(
    facts=DataFacts(
      fingerprint=dataset.fingerprint,
      splits=sizes_of(dataset.splits),
      example=specs_of(train_batch(0), rows=of_training.parts),
      num_classes=dataset.num_classes,
      class_names=dataset.class_names,
      batches_per_epoch=batches_per_epoch,
    ),
    train_batch=train_batch,
    reseed=lambda seed: train_batches(seed=seed),
    eval_batches=lambda split: graph_batches.eval_batches(
      dataset.splits[split], of_evaluation, eval_budget, **context.part
    ),
  )


SPEC = TaskSpec(GraphOptions, LossOptions, load, GnnClassification, ("gnn",))
