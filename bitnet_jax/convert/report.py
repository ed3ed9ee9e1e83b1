"""What became of the layers of a model."""

import dataclasses
import re
from collections.abc import Sequence

from bitnet_jax.quantizers.recipe import (
  Recipe,
  RecipeLike,
  check_used,
  get_recipe,
)

Pairs = Sequence[tuple[str, RecipeLike]]


@dataclasses.dataclass(frozen=True)
class Layer:
  """One layer with a kernel.

  Attributes:
    kind: name of its class.
    recipe: of its twin; ``None`` if the layer stayed as it was.
    reason: why it did, or the pattern that decided.
  """

  kind: str
  recipe: Recipe | None
  reason: str


@dataclasses.dataclass
class Report:
  """The layers that have been met, by slash-joined path."""

  layers: dict[str, Layer] = dataclasses.field(default_factory=dict)

  @property
  def converted(self) -> list[str]:
    """Paths of the layers that were replaced."""
    return [path for path, layer in self.layers.items() if layer.recipe]

  def __str__(self) -> str:
    width = max(map(len, self.layers), default=0)
    return "\n".join(
      f"{path:{width}}  {layer.kind:14}"
      f" {'quantized' if layer.recipe else 'as it was'}: {layer.reason}"
      for path, layer in self.layers.items()
    )

  def check_used(self, rules: Pairs) -> None:
    """Raises a ValueError for a rule that decided for no layer."""
    check_used(rules, list(self.layers))


def check_rules(rules: RecipeLike | Pairs) -> Pairs:
  """Returns rules as pairs of patterns and recipes.

  Raises:
    ValueError: for an unknown recipe, or what is no regular expression.
  """
  if isinstance(rules, (str, Recipe)):
    rules = [(".*", rules)]
  for pattern, _ in rules:
    try:
      re.compile(pattern)
    except re.error as error:
      raise ValueError(
        f"the rule {pattern!r} is no regular expression: {error}"
      ) from error
  return tuple((pattern, get_recipe(recipe)) for pattern, recipe in rules)


def decide(rules: Pairs, path: str) -> tuple[Recipe | None, str]:
  """Returns the recipe for a path, and which rule decided, or why none."""
  for pattern, recipe in rules:
    if re.fullmatch(pattern, path):
      return get_recipe(recipe), f"rule {pattern!r}"
  return None, "no rule matches"
