"""Options are crossed in the classification of arrays."""

import pytest

from tests.train.crossed import cases
from tests.train.crossed.checks import CHECKS


def test_cases_cover_pairs_of_options():
  quick = cases.covered(cases.CASES.keys() - {*cases.SLOW})
  print(f"{len(quick)} pairs of options are crossed, and with the slow cases")
  print(f"{len(cases.covered(cases.CASES))}, of {len(cases.OPTIONS)} options")
  assert len(quick) >= 60


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", cases.of_families("mlp", "cnn", "detector"))
def test_it_holds_whatever_is_combined(name, check, made):
  check(made(name))
