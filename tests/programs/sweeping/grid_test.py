"""Grids: what is taken, names of folders, and what is said of a mistake."""

import itertools

import pytest

from bitnet_jax.programs.sweeping import grid
from bitnet_jax.train.config import loading


@pytest.fixture(scope="module")
def config():
  return loading.load("digits_cnn")


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("seed=0..4", {"seed": [0, 1, 2, 3, 4]}),
    ("seed=7,-2..0", {"seed": [7, -2, -1, 0]}),
    ("config.seed = 3 , 4", {"seed": [3, 4]}),
    ("quant.recipe=float,b158", {"quant.recipe": ["float", "b158"]}),
    ("optim.learning_rate=1e-3,1", {"optim.learning_rate": [0.001, 1.0]}),
    ("optim.clip_norm=None,0.5", {"optim.clip_norm": [None, 0.5]}),
    ("model.channels=(16,32),(8,)", {"model.channels": [(16, 32), (8,)]}),
    ("data.standardize=true,False", {"data.standardize": [True, False]}),
    (
      'quant.rules=(),(("head","float"),)',
      {"quant.rules": [(), (("head", "float"),)]},
    ),
    ("data.source=file:a..b,file:c", {"data.source": ["file:a..b", "file:c"]}),
  ],
  ids=str,
)
def test_values_have_the_types_of_their_keys(config, text, expected):
  found = grid.parse([text], config)
  assert found == expected
  for values, wanted in zip(found.values(), expected.values(), strict=True):
    assert [type(v) for v in values] == [type(v) for v in wanted]


@pytest.mark.parametrize(
  ("texts", "part"),
  [
    ([], "no --grid is given; name a key and its values"),
    (["seed"], "--grid=seed is not KEY=VALUE,VALUE,..."),
    (["=1"], "--grid==1 is not KEY=VALUE"),
    (["seed="], "--grid=seed= is empty: it has no value for seed"),
    (["seed=4..2"], "--grid=seed=4..2: the range 4..2 is empty"),
    (["seed=0..99999"], "range 0..99999 is too long"),
    (["seed=0,1,0"], "--grid=seed=0,1,0 has the value 0 twice"),
    (["seed=1", "seed=2"], "--grid=seed=2: another --grid already has seed"),
    (["seed=a"], "--grid=seed=a: seed takes a value of type int, which 'a'"),
    (["seed=1,,2"], "seed takes a value of type int, which '' is not"),
    (["model.channels=3"], "takes a value of type tuple, which '3' is not"),
    (["model.channels=(3"], "has a bracket or a quote that is not closed"),
    (["quant.recip=b158"], "did you mean 'quant.recipe'"),
    (["quant=b158"], "--grid=quant=b158: quant is a group; its keys are"),
    (["seed=0..999", "split=0..99"], "split is not a key of the config"),
  ],
  ids=str,
)
def test_mistaken_grid_is_named_in_one_line(config, texts, part):
  with pytest.raises(ValueError) as error:
    grid.parse(texts, config)
  assert part in str(error.value)
  assert "\n" not in str(error.value)


def test_members_are_the_product_with_the_last_key_fastest():
  found = grid.members({"a": [1, 2], "b": ["x", None]})
  assert found == [
    {"a": 1, "b": "x"},
    {"a": 1, "b": None},
    {"a": 2, "b": "x"},
    {"a": 2, "b": None},
  ]


def test_names_are_readable_safe_and_do_not_depend_on_the_order():
  name = grid.name_of({"seed": 3, "quant.recipe": "b158"})
  assert name == "quant.recipe=b158,seed=3"
  assert name == grid.name_of({"quant.recipe": "b158", "seed": 3})
  assert grid.name_of({"x": (16, 32)}) == "x=16+32"
  assert grid.name_of({"x": 1e-05}) == "x=1e-05"
  assert grid.name_of({"s": "file:/a b/ü$.npz"}) == "s=file:%2Fa%20b%2Fü%24.npz"
  values = [None, (), "..", "a,b=c", ("a", "b"), ("a,b",), "a+b", 1, True, "~"]
  names = [grid.name_of({"k": value}) for value in values]
  assert len({*names}) == len(values)
  assert not any("/" in name for name in names)
  long = [grid.name_of({"k": "ü" * 300 + end}) for end in "ab"]
  assert len({*long}) == 2
  assert all(len(name.encode()) <= 200 for name in long)


def test_values_of_other_keys_have_other_names():
  texts = ("", "a", "a,b", "a=b", "=", ",", "%", "%41", "A")
  pairs = itertools.product(texts, texts)
  names = [grid.name_of({"a": a, "b": b}) for a, b in pairs]
  assert len({*names}) == len(texts) ** 2
