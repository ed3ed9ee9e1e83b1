"""Report of a conversion: which layers are quantized, and why others not."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from bitnet_jax.layers.arguments import changed_options
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
    recipe: recipe of its twin; ``None`` if the layer is unchanged.
    reason: why it is unchanged, or the pattern that decided.
  """

  kind: str
  recipe: Recipe | None
  reason: str

  @property
  def state(self) -> str:
    """One of "quantized", "float" and "as it was"."""
    if self.recipe is None:
      return "as it was"
    return "float" if self.recipe.is_float else "quantized"


@dataclasses.dataclass(eq=False)
class Report:
  """The layers of a model, by slash-joined path.

  Two reports are never equal, even if they list the same layers.

  Attributes:
    layers: what became of each.
    key: of the conversion; calls with the same key share their traces.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> from bitnet_jax.convert import Report, bitlinearize
    >>> net = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)])
    >>> rules = {"layers_2": "b158"}
    >>> ternary, report = bitlinearize(net, rules, jax.numpy.ones((1, 4)))
    >>> isinstance(report, Report)
    True
    >>> report.converted, report.layers["layers_0"].reason
    (['layers_2'], 'no rule matches')
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
    """Raises a ValueError for a rule that applied to no layer."""
    check_used(rules, list(self.layers))


def check_rules(rules: Rules) -> Pairs:
  """Returns rules as pairs of patterns and recipes.

  Raises:
    ValueError: for an invalid rule, an unknown recipe, or a pattern that is no
      regular expression.
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


def judge(
  layer: Any,
  path: str,
  rules: Pairs,
  twins: Mapping[type[Any], type[Any]],
  obstacle: str = "",
) -> Layer:
  """Returns what becomes of a layer: its recipe, or why it has none.

  Args:
    layer: of Linen or of NNX, with a kernel.
    path: path of the layer.
    rules: (pattern, recipe) pairs, of which the first that matches decides.
    twins: quantized classes by the class that they replace.
    obstacle: another reason why it cannot be replaced.
  """
  kind, names = type(layer), ", ".join(twin.__name__ for twin in twins)
  found = next((r for r in rules if re.fullmatch(r[0], path)), None)
  if found is None:
    return Layer(kind.__name__, None, "no rule matches")
  if kind in twins:
    for option in changed_options(layer, kind):
      obstacle = obstacle or f"it has {option}, which its twin does not take"
  elif isinstance(layer, tuple(twins)):
    obstacle = (
      f"{kind.__name__} has code of its own, which a twin would replace"
    )
  else:
    obstacle = obstacle or f"{kind.__name__} has no twin; {names} have"
  if obstacle:
    return Layer(kind.__name__, None, obstacle)
  return Layer(kind.__name__, get_recipe(found[1]), f"rule {found[0]!r}")
