"""Kinds of tasks by name."""

from bitnet_jax.train.settings import Kind
from bitnet_jax.train.tasks import (
  classification,
  documents,
  language,
  text_classification,
  translation,
)

KINDS: dict[str, Kind] = {
  "causal_lm": language.CAUSAL,
  "classification": classification.KIND,
  "documents": documents.KIND,
  "masked_lm": language.MASKED,
  "span_corruption": language.SPANS,
  "text_classification": text_classification.KIND,
  "translation": translation.KIND,
}
