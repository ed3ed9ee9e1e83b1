"""Kinds of tasks by name."""

from bitnet_jax.train.settings import Kind
from bitnet_jax.train.tasks import classification

KINDS: dict[str, Kind] = {
  "classification": classification.KIND,
}
