"""Reads the source of a config with a budget, or says what to use instead."""

import dataclasses

from bitnet_jax.data.sources import registry
from bitnet_jax.data.sources.tables import Source
from bitnet_jax.data.splits import Cuts
from bitnet_jax.train.decisions.decisions import Decisions

# By what they train on, a key of ``registry.SOURCES``: the configs that ask.
CONFIGS = {
  "arrays": ("images", "features"),
  "labeled texts": ("texts", "pairs"),
  "documents": ("lm",),
  "pairs of texts": ("translate",),
  "a graph": ("nodes",),
  "graphs": ("graphs",),
}


def check(decisions: Decisions, content: str) -> str:
  """Returns ``data.source``.

  Args:
    decisions: the config.
    content: what its task trains on, a key of ``registry.SOURCES``.

  Raises:
    ValueError: if there is none, or one of something else; names the kinds of
      sources, or the configs for this one.
  """
  source = decisions.given("data.source")
  kinds = ", ".join(registry.SOURCES[content])
  if source is None:
    raise ValueError(
      f"data.source is not set; give --config.data.source=SOURCE, where SOURCE"
      f" is one of: {kinds} (docs/your-data.md describes them)"
    )
  try:
    registry.find(content, source)
  except ValueError as error:
    others = [
      f"{other} (--config={' or --config='.join(configs)})"
      for other, configs in CONFIGS.items()
      if other != content and _reads(other, source)
    ]
    if not others:
      raise ValueError(f"data.source: {error}") from error
    raise ValueError(
      f"data.source is {source!r}, which is no source of {content} (one of:"
      f" {kinds}), but of {', or of '.join(others)}"
    ) from error
  return source


def read(decisions: Decisions, content: str) -> Source:
  """Returns the tables of the source; see ``check`` for the errors."""
  reader, rest = registry.find(content, check(decisions, content))
  return registry.read(reader, rest, uncut(decisions))


def uncut(decisions: Decisions) -> Cuts:
  """Returns the cuts of the config, with fractions of 0."""
  cuts = decisions.settings.data.cuts()
  return dataclasses.replace(cuts, valid_fraction=0.0, test_fraction=0.0)


def _reads(content, source) -> bool:
  try:
    registry.find(content, source)
  except ValueError:
    return False
  return True
