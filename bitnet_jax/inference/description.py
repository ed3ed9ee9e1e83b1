"""Models as JSON: their family, sizes, and recipes."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from bitnet_jax import choices
from bitnet_jax.layers.introspection import bit_layers
from bitnet_jax.models.registry import MODELS, example_call
from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.quantizers.recipe import Recipe

# Sizes whose repeats are traced one by one, which takes time.
_COUNTS = (
  *("depth", "num_layers", "num_decoder_layers"),
  *("convs_per_block", "steps"),
)
# They, and the lists, may always be this large.
MOST_REPEATS = 100


def describe(
  model: nn.Module, params: Mapping[str, Any]
) -> dict[str, Any] | None:
  """Returns a model as JSON values, for ``build``.

  ``None`` for a model that is not of this package.
  """
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


def build(content: Any, *, largest: int, arrays: int) -> nn.Module:
  """Returns the model of a description.

  Args:
    content: what ``describe`` returned, after JSON.
    largest: number of parameters, which no size may exceed.
    arrays: number of arrays, which the number of layers may not exceed unless
      they are scanned or at most ``MOST_REPEATS``.

  Raises:
    ValueError: for anything that does not describe a model.
  """
  if content is None:
    raise ValueError("the model is not one of this package; give it as model")
  try:
    json.dumps(content, allow_nan=False)  # Refuses NaN and infinity.
    family = choices.pick(MODELS, content["name"], key="name")
    sizes = {name: _tuples(value) for name, value in content["sizes"].items()}
    most = max(arrays, MOST_REPEATS)
    _check_sizes(sizes, largest, most)
    if sum(len(entry["paths"]) for entry in content["recipes"]) > most:
      raise ValueError(f"recipes has more than {most} paths")
    # Paths, not patterns: matching an untrusted pattern may take forever.
    rules = tuple(
      (re.escape(path), _recipe(entry["recipe"]))
      for entry in content["recipes"]
      for path in entry["paths"]
    )
    return family.module(family.config(**sizes), rules)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(f"the description is of no model: {error}") from error


def _check_sizes(sizes, largest, most):
  """Raises a ValueError for sizes that such a file cannot need."""
  for name, value in sizes.items():
    is_scanned = sizes.get("scan_layers") is True
    limit = most if name in _COUNTS and not is_scanned else largest
    numbers = value if isinstance(value, tuple) else (value,)
    if len(numbers) > most:
      raise ValueError(f"{name} has {len(numbers)} entries, more than {most}")
    if any(isinstance(n, int) and n > limit for n in numbers):
      raise ValueError(f"{name} is {value}, which is more than {limit}")


def _recipe(content: Mapping[str, Any]) -> Recipe:
  found = dict(content)
  for side in ("weights", "acts"):
    if found[side] is not None:
      fields = found[side].items()
      found[side] = Quantizer(**{n: _tuples(value) for n, value in fields})
  return Recipe(**found)


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
