"""Kinds of tasks by name."""

from bitnet_jax.train.config.settings import Kind
from bitnet_jax.train.tasks import (
  classification,
  documents,
  graph_classification,
  language,
  nodes,
  text_classification,
  translation,
)

KINDS: dict[str, Kind] = {
  "causal_lm": language.CAUSAL,
  "classification": classification.KIND,
  "documents": documents.KIND,
  "graph_classification": graph_classification.KIND,
  "masked_lm": language.MASKED,
  "node_classification": nodes.KIND,
  "span_corruption": language.SPANS,
  "text_classification": text_classification.KIND,
  "translation": translation.KIND,
}
