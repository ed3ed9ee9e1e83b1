"""Decides what a config with a budget leaves open, in two parts.

``build`` calls ``of_data`` before the data are loaded, and ``of_length`` when
their size is known.
"""

from collections.abc import Callable

from bitnet_jax import choices
from bitnet_jax.train.decisions import arrays, cadences, graphs, texts
from bitnet_jax.train.decisions.decisions import Decisions
from bitnet_jax.train.tasks.facts import DataFacts

# By the name of a task, what decides from its data.
ASKED: dict[str, Callable[[Decisions], None]] = {
  "causal_lm": texts.ask_documents,
  "classification": arrays.ask,
  "graph_classification": graphs.ask_graphs,
  "masked_lm": texts.ask_documents,
  "node_classification": graphs.ask_nodes,
  "text_classification": texts.ask_labeled,
  "translation": texts.ask_pairs,
}


def of_data(decisions: Decisions) -> None:
  """Decides all but what depends on the length of the run.

  Raises:
    ValueError: if data are missing, or if something cannot be decided from
      them; names the key to set.
  """
  if not decisions.has_budget:
    cadences.check_unused(decisions)
    return
  task = decisions.settings.task.name
  choices.pick(ASKED, task, key="budget is set, but task.name")(decisions)


def of_length(decisions: Decisions, facts: DataFacts) -> None:
  """Decides the length of the run, and what depends on it.

  Args:
    decisions: what was decided before.
    facts: sizes of the data.
  """
  if decisions.has_budget:
    cadences.decide(decisions, facts)
