"""Models as JSON: their family, sizes, and recipes."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from bitnet_jax import choices
from bitnet_jax.layers.introspection import bit_layers
from bitnet_jax.models.examples import example_call
from bitnet_jax.models.registry import MODELS
from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.quantizers.recipe import Recipe

# Sizes that count modules, each of which takes time to make.
_COUNTS = ("depth", "num_layers", "num_decoder_layers", "convs_per_block")
_MOST_MODULES = 10_000


def describe(
  model: nn.Module, params: Mapping[str, Any]
) -> dict[str, Any] | None:
  """Returns what ``build`` makes the model of; ``None`` for another's model."""
  for name, family in MODELS.items():
    if type(model) is family.module:
      args, kwargs = example_call(model, params)
      paths: dict[Recipe, list[str]] = {}
      for layer in bit_layers(model, *args, **kwargs):
        paths.setdefault(layer.recipe, []).append(layer.path)
      return {
        "name": name,
        "sizes": dataclasses.asdict(model.cfg),
        "recipes": [
          {"paths": found, "recipe": dataclasses.asdict(recipe)}
          for recipe, found in paths.items()
        ],
      }
  return None


def build(content: Any, *, largest: int) -> nn.Module:
  """Returns the model of a description.

  Args:
    content: what ``describe`` returned, after JSON.
    largest: number that no size may exceed: that of the parameters.

  Raises:
    ValueError: for anything that is not the description of a model.
  """
  if content is None:
    raise ValueError("the model is not one of this package; give it as model")
  try:
    family = choices.pick(MODELS, content["name"], key="name")
    sizes = {name: _tuples(value) for name, value in content["sizes"].items()}
    for name, value in sizes.items():
      limit = min(largest, _MOST_MODULES) if name in _COUNTS else largest
      numbers = value if isinstance(value, tuple) else (value,)
      if any(isinstance(n, int) and n > limit for n in numbers):
        raise ValueError(f"{name} is {value}, which is more than {limit}")
    # Paths, not patterns: to match a pattern of a stranger may take forever.
    rules = tuple(
      (re.escape(path), _recipe(entry["recipe"]))
      for entry in content["recipes"]
      for path in entry["paths"]
    )
    return family.module(family.config(**sizes), rules)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(f"the description is of no model: {error}") from error


def _recipe(content: Mapping[str, Any]) -> Recipe:
  found = dict(content)
  for side in ("weights", "acts"):
    if found[side] is not None:
      fields = found[side].items()
      found[side] = Quantizer(**{n: _tuples(value) for n, value in fields})
  return Recipe(**found)


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
