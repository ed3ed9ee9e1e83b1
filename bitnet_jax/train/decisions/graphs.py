"""Decides from a graph with labeled nodes, and from sets of labeled graphs."""

from typing import Any

import numpy as np

from bitnet_jax.data.views import graph_sets, nodes
from bitnet_jax.train.decisions import examples, sources
from bitnet_jax.train.decisions.decisions import Decisions

_PER_CLASS = 20  # training nodes at most


def ask_nodes(decisions: Decisions) -> None:
  """Decides what the task "node_classification" leaves open."""
  graph: Any = sources.read(decisions, "a graph").splits["train"]
  found = nodes.make_dataset(graph.records[0], where=graph.name)
  labels = found.labels[found.has_label]
  _decide_classes(decisions, found.num_classes)
  examples.check_classes(decisions, labels)
  if found.splits:
    reason = "the source has splits"
    decisions.decide("data.valid_fraction", 0.0, reason)
  else:
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    reason = f"the smallest class has {fewest} nodes"
    per_class = max(min(_PER_CLASS, fewest // 2), 1)
    decisions.decide("data.train_per_class", per_class, reason)
    reason = "of the nodes that are not for training"
    decisions.decide("data.valid_fraction", 0.5, reason)
  decisions.decide("data.batch_size", 1, "the graph")


def ask_graphs(decisions: Decisions) -> None:
  """Decides what the task "graph_classification" leaves open."""
  source = sources.check(decisions, "graphs")
  data = decisions.settings.data
  found = graph_sets.load(
    source,
    sources.uncut(decisions),
    max_degree=data.max_degree,
    num_classes=data.num_classes,
  )
  train = found.splits["train"]
  examples.check_classes(decisions, train.labels)
  _decide_classes(decisions, found.num_classes)
  examples.decide_cuts(decisions, found.splits, num_classes=found.num_classes)
  held = decisions.given("data.valid_fraction")
  held += decisions.given("data.test_fraction")
  examples.decide_batch_size(decisions, round(len(train) * (1 - held)))


def _decide_classes(decisions, num_classes) -> None:
  reason = "the labels"
  decisions.decide("data.num_classes", num_classes, reason)
  decisions.decide("checkpoint.metric", "valid/accuracy", "labels are classes")
  decisions.decide("checkpoint.mode", "max")
