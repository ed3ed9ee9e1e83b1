"""Kinds of tasks by name."""

from bitnet_jax.train.settings import Kind
from bitnet_jax.train.tasks import (
  classification,
  graph_classification,
  nodes,
)

KINDS: dict[str, Kind] = {
  "classification": classification.KIND,
  "graph_classification": graph_classification.KIND,
  "node_classification": nodes.KIND,
}
