"""Names, order and mistakes of cases."""

import pytest

from bitnet_jax import studies
from bitnet_jax.studies import case as cases


def make(name, **after):
  return studies.Case("configs/xor_mlp.py", {"part": name}, after=after)


def test_name_has_cell_and_seed_in_the_order_of_keys():
  cell = {"rate": 0.01, "hidden": 8, "precision": "b158"}
  case = studies.Case("configs/xor_mlp.py", cell, seed=3)
  assert case.name == "hidden=8,precision=b158,rate=0.01,seed=3"


def test_cases_come_after_those_that_they_start_from():
  first, second = make("a"), make("b", init_from="part=a,seed=0")
  assert [*cases.by_name([second, first])] == [first.name, second.name]


@pytest.mark.parametrize(
  ("found", "said"),
  [
    ([make("a"), make("a")], "two cases are named part=a,seed=0"),
    ([make("a", init_from="part=c")], "init_from of the case part=a,seed=0"),
  ],
)
def test_mistakes_in_cases_are_errors_that_name_the_case(found, said):
  with pytest.raises(ValueError, match=said):
    cases.by_name(found)


def test_a_seed_in_the_cell_and_an_unknown_start_are_errors():
  with pytest.raises(ValueError, match="the seed of a case"):
    studies.Case("c.py", {"seed": 1})
  with pytest.raises(ValueError, match=r"'init_from', 'distill\.teacher'"):
    make("a", init="part=b")
