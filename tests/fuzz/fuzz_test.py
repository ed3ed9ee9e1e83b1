"""Damaged and hostile files are read, or refused by name, in bounded time."""

import pytest

from tests.fuzz.program import fuzz
from tests.fuzz.readers import READERS

# Those that compile programs, of which the tests beside them try some.
SLOW = ("frozen", "hf")
FEW, MANY = 8, 2000


def faults(names, count):
  return [
    f"{x.reader}, seed {x.seed}: {x.outcome}\n{x.message}"
    for x in fuzz(names, 0, count)
    if x.is_fault
  ]


def test_damaged_files_are_read_or_refused_by_name():
  assert not faults([name for name in READERS if name not in SLOW], FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files_are_read_or_refused_by_name(name):
  """As ``python -m tests.fuzz --mutations=2000`` does."""
  assert not faults([name], MANY)


def test_every_kind_of_fault_is_noticed():
  found = {x.outcome for x in fuzz(["faulty"], 0, 9) if x.is_fault}
  assert found == {"no name", "raw error", "crash", "hang"}
