"""Options are crossed in graphs and texts."""

import pytest

from tests.train.crossed.cases import CASES
from tests.train.crossed.checks import CHECKS

FAMILIES = (
  "nodes",
  "graphs",
  "documents",
  "causal",
  "masked",
  "labels",
  "translation",
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
  "name", [name for name, case in CASES.items() if case.family in FAMILIES]
)
def test_it_holds_whatever_is_combined(name, check, made):
  check(made(name))
