"""Tests of recipes, their names and their rules."""

import dataclasses

import pytest

from bitnet_jax import RECIPES, Quantizer, Recipe
from bitnet_jax.quantizers.recipe import (
  TERNARY,
  get_recipe,
  recipe_at,
  unused_patterns,
)

RULES = [
  ("head", "float"),
  (".*/query", RECIPES["bitlinear"]),
  (".*", "b158"),
]


def test_named_recipes_are_those_of_the_papers():
  median = Quantizer("absmedian", (-1, 1))
  mean = Quantizer("absmean", (-1, 1))
  int8 = Quantizer("absmax", (-128, 127), axis=-1)
  symmetric = Quantizer("absmax", (-127, 127), axis=-1)
  assert RECIPES["float"] == Recipe(None, None, None)
  assert RECIPES["b158"] == Recipe(mean, int8, "layer_norm")
  assert RECIPES["b158_median"] == Recipe(median, int8, "layer_norm")
  assert RECIPES["bitlinear"] == Recipe(
    median, int8, "layer_norm", bias_in_product=True
  )
  assert RECIPES["bitnet_2b4t"] == Recipe(mean, symmetric, None)
  assert RECIPES["trilm"] == Recipe(mean, None, None)
  names = set(RECIPES) - {"float", "bitnet_2b4t", "trilm"}
  assert names >= {"binary", "twn", "int8", "int4"}
  for name in names:
    assert (RECIPES[name].acts, RECIPES[name].norm) == (int8, "layer_norm")


def test_default_recipe_is_b158():
  assert Recipe() == RECIPES["b158"]


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(norm="batch_norm"), "norm is 'batch_norm'.*'layer_norm'.*'rms_norm'"),
    (dict(ste="tanh"), "ste is 'tanh'.*'identity', 'clipped'"),
    (dict(compute="int4"), "compute is 'int4'.*'auto', 'int8', 'float'"),
    (
      dict(weights=dataclasses.replace(TERNARY, axis=-1)),
      "weights.axis is -1.*None, 0",
    ),
    (
      dict(acts=Quantizer("absmax", (-128, 127), axis=0)),
      "acts.axis is 0.*None, -1",
    ),
    (dict(acts=None, compute="int8"), "compute is 'int8'.*in float"),
    (dict(weights=None, compute="float"), "compute is 'float'.*in float"),
  ],
)
def test_bad_field_is_named_with_its_value_and_choices(options, message):
  with pytest.raises(ValueError, match=message):
    Recipe(**options)


def test_recipe_is_a_frozen_value():
  assert hash(Recipe()) == hash(RECIPES["b158"])
  with pytest.raises(dataclasses.FrozenInstanceError):
    Recipe().norm = None


@pytest.mark.parametrize(
  "recipe, kind",
  [("b158", "integer"), ("trilm", "mixed"), ("float", "float")],
)
def test_recipe_knows_what_it_leaves_in_float(recipe, kind):
  recipe = get_recipe(recipe)
  assert recipe.is_integer == (kind == "integer")
  assert recipe.is_float == (kind == "float")


def test_stochastic_recipe_needs_a_key():
  stochastic = dataclasses.replace(TERNARY, rounding="stochastic")
  assert Recipe(stochastic).needs_key
  assert not Recipe().needs_key
  assert not RECIPES["float"].needs_key


def test_unknown_recipe_names_the_choices_and_the_nearest():
  with pytest.raises(
    ValueError, match=r"recipe is 'b185'.*'b158'.*did you mean"
  ):
    get_recipe("b185")


@pytest.mark.parametrize(
  "path, name",
  [
    ("head", "float"),
    ("blocks/query", "bitlinear"),
    ("query", "b158"),
    ("blocks/head", "b158"),
  ],
)
def test_first_rule_that_matches_the_whole_path_decides(path, name):
  assert recipe_at(RULES, path) == RECIPES[name]


def test_one_recipe_is_for_all_paths():
  assert recipe_at("twn", "anything") == RECIPES["twn"]
  assert unused_patterns("twn", ["anything"]) == []


def test_path_without_a_rule_is_an_error_with_the_patterns():
  with pytest.raises(ValueError, match=r"'tail'.*'head'"):
    recipe_at(RULES[:1], "tail")


def test_patterns_that_decide_nothing_are_found():
  assert unused_patterns(RULES, ["head", "blocks/key"]) == [".*/query"]
