"""Options are crossed in tasks on texts and graphs."""

import pytest

from tests.train.crossed import cases
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
@pytest.mark.parametrize("name", cases.of_families(*FAMILIES))
def test_it_holds_whatever_is_combined(name, check, made):
  check(made(name))
