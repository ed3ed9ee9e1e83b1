"""Models by name."""

import dataclasses

import pytest

from bitnet_jax import config_keys
from bitnet_jax.layers.introspection import BitLayer
from bitnet_jax.models import registry
from bitnet_jax.quantizers.recipe import RECIPES

LAYERS = [BitLayer(path, RECIPES["b158"], ()) for path in ("layer_0", "head")]


@pytest.mark.parametrize("name", registry.MODELS)
def test_families_take_sizes_and_a_recipe(name):
  family = registry.get_family(name)
  fields = [f.name for f in dataclasses.fields(family.config)]
  assert {"dtype", "param_dtype", "dropout"} <= set(fields)
  assert {"num_classes", "vocab_size"} & set(fields)
  attributes = [f.name for f in dataclasses.fields(family.module)]
  assert attributes[:2] == ["cfg", "recipe"]


@pytest.mark.parametrize("name", registry.MODELS)
def test_defaults_are_those_of_configs(name):
  keys = {
    key: value.default if isinstance(value, config_keys.Later) else value
    for key, value in config_keys.MODELS[name].items()
  }
  for field in dataclasses.fields(registry.get_family(name).config):
    if field.default is not dataclasses.MISSING and field.name != "head_dim":
      assert field.default == keys[field.name], field.name


def test_unknown_family_lists_the_names():
  message = r"model.name is 'mpl', .* 'cnn', .*\(did you mean 'mlp'\?\)"
  with pytest.raises(ValueError, match=message):
    registry.get_family("mpl")


@pytest.mark.parametrize(
  "rules",
  ["b158", (), (("head", "float"),), (("h.*", "float"), (".*", "b158"))],
)
def test_rules_that_decide_are_fine(rules):
  registry.check_rules(rules, LAYERS)


@pytest.mark.parametrize(
  ("rules", "pattern"),
  [
    ((("hea", "float"),), "hea"),
    (((".*", "float"), ("head", "b158")), "head"),
    ((("layer_.", "float"), ("layer_0", "b158")), "layer_0"),
  ],
)
def test_rule_that_decides_for_no_layer_is_named(rules, pattern):
  message = f"the rule '{pattern}' applies to no layer; .*: layer_0, head"
  with pytest.raises(ValueError, match=message):
    registry.check_rules(rules, LAYERS)
