"""The tasks by name, and how they load data and make models."""

from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import (
  base,
  causal,
  classification,
  detection,
  documents,
  graph_classification,
  masked,
  nodes,
  spans,
  text_classification,
  translation,
)
from bitnet_jax.train.tasks.facts import DataFacts

TASKS: dict[str, TaskSpec] = {
  "causal_lm": causal.SPEC,
  "classification": classification.SPEC,
  "detection": detection.SPEC,
  "documents": documents.SPEC,
  "graph_classification": graph_classification.SPEC,
  "masked_lm": masked.SPEC,
  "node_classification": nodes.SPEC,
  "span_corruption": spans.SPEC,
  "text_classification": text_classification.SPEC,
  "translation": translation.SPEC,
}


def load_data(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the data of a config.

  Raises:
    ValueError: for a mistake in the config or the data, naming it.
    FileNotFoundError: if the data is not there.
  """
  return TASKS[settings.task.name].load(settings, context)


def make_task(settings: Settings, facts: DataFacts) -> base.Supervised:
  """Returns the task of a config, with its model; needs no data."""
  cls = TASKS[settings.task.name].task
  return cls(base.make_model(settings, facts), facts, settings.task.options)
