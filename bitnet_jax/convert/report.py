"""What became of the layers of a model."""

import dataclasses
import re

from bitnet_jax.layers.interception import new_key
from bitnet_jax.quantizers.recipe import (
  Pairs,
  Recipe,
  Rules,
  as_pairs,
  check_used,
  get_recipe,
)


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

  @property
  def state(self) -> str:
    """What to say of it: "quantized", "float" or "as it was"."""
    if self.recipe is None:
      return "as it was"
    return "float" if self.recipe.is_float else "quantized"


@dataclasses.dataclass(eq=False)
class Report:
  """The layers that have been met, by slash-joined path.

  A report equals no other, not even one that lists the same.

  Attributes:
    layers: what became of each.
    key: of the conversion; calls with the same key share their traces.
  """

  layers: dict[str, Layer] = dataclasses.field(default_factory=dict)
  key: int = dataclasses.field(default_factory=new_key, repr=False)

  @property
  def converted(self) -> list[str]:
    """Paths of the layers that were replaced."""
    return [path for path, layer in self.layers.items() if layer.recipe]

  def __str__(self) -> str:
    width = max(map(len, self.layers), default=0)
    return "\n".join(
      f"{path:{width}}  {layer.kind:14} {layer.state}: {layer.reason}"
      for path, layer in self.layers.items()
    )

  def check_used(self, rules: Pairs) -> None:
    """Raises a ValueError for a rule that decided for no layer."""
    check_used(rules, list(self.layers))


def check_rules(rules: Rules) -> Pairs:
  """Returns rules as pairs of patterns and recipes.

  Raises:
    ValueError: for what is no rule, an unknown recipe, or what is no regular
      expression.
  """
  pairs = as_pairs(rules)
  for pattern, _ in pairs:
    try:
      re.compile(pattern)
    except re.error as error:
      raise ValueError(
        f"the rule {pattern!r} is no regular expression: {error}"
      ) from error
  return tuple((pattern, get_recipe(recipe)) for pattern, recipe in pairs)


def decide(rules: Pairs, path: str) -> tuple[Recipe | None, str]:
  """Returns the recipe for a path, and which rule decided, or why none."""
  for pattern, recipe in rules:
    if re.fullmatch(pattern, path):
      return get_recipe(recipe), f"rule {pattern!r}"
  return None, "no rule matches"
