"""Models by name."""

from typing import Any, NamedTuple

import flax.linen as nn

from bitnet_jax import choices
from bitnet_jax.layers import bit_layers
from bitnet_jax.models.cnn import Cnn, CnnConfig
from bitnet_jax.models.mlp import Mlp, MlpConfig
from bitnet_jax.quantizers.recipe import Rules, unused_patterns


class Family(NamedTuple):
  """A model: its class, and the class of its sizes."""

  module: type[nn.Module]
  config: type


MODELS: dict[str, Family] = {
  "cnn": Family(Cnn, CnnConfig),
  "mlp": Family(Mlp, MlpConfig),
}


def get_family(name: str) -> Family:
  """Returns the model of that name; a ValueError lists the names."""
  return choices.pick(MODELS, name, key="model.name")


def check_rules(model: nn.Module, rules: Rules, *args: Any) -> None:
  """Raises a ValueError for a rule that decides for no layer of ``model``.

  Args:
    model: the model that was built with these rules.
    rules: its (pattern, recipe) rules, or one recipe.
    *args: arguments of a call, arrays or ``jax.ShapeDtypeStruct``.
  """
  paths = [layer.path for layer in bit_layers(model, *args)]
  unused = unused_patterns(rules, paths)
  if unused:
    raise ValueError(
      f"the rule {unused[0]!r} decides for no layer; the layers are:"
      f" {', '.join(paths)} (the first rule that matches wins)"
    )
