"""Options are crossed in the classification of arrays."""

import pytest

from tests.train.crossed.cases import CASES, covered
from tests.train.crossed.checks import CHECKS

FAMILIES = ("mlp", "cnn")


def test_cases_cover_pairs_of_options():
  pairs = covered(CASES)
  print(f"{len(pairs)} pairs of options are crossed")
  assert len(pairs) >= 60


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
  "name", [name for name, case in CASES.items() if case.family in FAMILIES]
)
def test_it_holds_whatever_is_combined(name, check, made):
  check(made(name))
