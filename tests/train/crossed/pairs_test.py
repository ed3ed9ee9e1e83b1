"""All pairs of options of a multilayer perceptron, in few long cases."""

import itertools
import random

import pytest

from tests.train.crossed.cases import OPTIONS, Case
from tests.train.crossed.checks import CHECKS

# What other families have; a transformer, texts, graphs or images.
_OTHERS = {
  "a rule",
  "batch norm",
  "beams",
  "packed documents",
  "predictions",
  "regression",
  "remat",
  "scan",
  "stride",
  "tf-idf",
  "whole vocabulary",
  "z-loss",
}
# Of each set a run has one option at most.
_EXCLUSIVE = (
  {"float", "median", "int8 weights", "2B4T"},
  {"slow phase-in", "late switch"},
  {"adam", "all decay"},
  {"float", "backward int8", "backward bfloat16"},
  {"int8 weights", "float", "stochastic weights"},
  {"2B4T", "float", "RMS norm"},
  {"float", "scale a channel"},
  {"float", "clipped gradient"},
)
_PER_CASE = 12


def can_meet(first, second):
  return not any({first, second} <= group for group in _EXCLUSIVE)


def cover(options):
  """Returns sets of options in which all pairs meet, found greedily."""
  draw, found = random.Random(0), []
  left = {frozenset(p) for p in itertools.combinations(options, 2)}
  left = {pair for pair in left if can_meet(*pair)}

  def gain(option, chosen):
    return sum(frozenset((option, other)) in left for other in chosen)

  while left:
    chosen = [*min(left, key=sorted)]
    while len(chosen) < _PER_CASE:
      others = [o for o in options if all(can_meet(o, c) for c in chosen)]
      others = [o for o in others if o not in chosen]
      draw.shuffle(others)
      best = max(others, key=lambda o: gain(o, chosen), default=None)
      if best is None or not gain(best, chosen):
        break
      chosen.append(best)
    left -= {frozenset(p) for p in itertools.combinations(chosen, 2)}
    found.append(tuple(option for option in options if option in chosen))
  return found


_CASES = cover([option for option in OPTIONS if option not in _OTHERS])


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("i", range(len(_CASES)))
def test_it_holds_for_all_pairs(i, check, made):
  check(made(Case("mlp", _CASES[i], "mlp")))
