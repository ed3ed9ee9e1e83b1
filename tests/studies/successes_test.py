"""Success rates, and how many more hidden units a precision needs."""

import pytest

from bitnet_jax.studies import Runs, successes
from tests.studies.conftest import make_record

WIDTHS = (2, 4, 8, 16)
ABOUT = {"claim": 7, "scale": "cpu"}


def make(needed, rates=(0.01,), seeds=20):
  """Returns runs that succeed from a width on; four seeds need twice of it."""
  found = []
  for precision, width in needed.items():
    for hidden in WIDTHS:
      for rate in rates:
        for seed in range(seeds):
          least = width if seed >= 4 else 2 * width
          solved = hidden >= least and rate == rates[0]
          values = {"test/accuracy": 1.0 if solved else 0.9}
          values["valid/accuracy"] = values["test/accuracy"]
          cell = {"hidden": hidden, "rate": rate, "precision": precision}
          found.append(make_record(cell, seed, metrics=values))
  return Runs.of(found, "cpu")


def solve(runs):
  return successes.at_best_rates(
    runs, "test/accuracy", 1.0, chosen_by="valid/accuracy"
  )


def test_rates_and_smallest_widths_are_those_at_the_best_rate():
  solved = solve(make({"float32": 2, "b158": 4}, rates=(0.1, 0.01)))
  assert solved["b158"].rate == 0.1
  assert [r.value for r in solved["b158"].rates.values()] == [0, 0.8, 1, 1]
  assert solved["b158"].smallest(0.5) == 4
  assert solved["b158"].smallest(0.9) == 8
  assert solved["float32"].smallest(0.5) == 2
  least, success = successes.tables(solved.values())
  assert ["b158", 0.1, 4, 8] in least.data()["rows"]
  assert len(success.data()["rows"]) == 2 * len(WIDTHS)
  assert len(successes.figure(solved.values(), "T").data()["series"]) == 2


@pytest.mark.parametrize(
  ("needed", "outcome"), [(8, "holds"), (2, "does not hold")]
)
def test_precision_that_needs_more_units_is_found(needed, outcome):
  solved = solve(make({"float32": 2, "b158": needed}))
  found = successes.wider(solved["float32"], solved["b158"], 1.25, **ABOUT)
  assert found.outcome == outcome
  assert found.effect == pytest.approx(needed / 2, rel=0.2)


def test_a_run_that_diverged_failed():
  cell = {"hidden": 2, "rate": 0.01, "precision": "b158"}
  runs = Runs.of([make_record(cell, 0, diverged=3)], "cpu")
  assert solve(runs)["b158"].failed == {2: {0: 1.0}}


def test_nets_without_a_rate_in_common_are_not_decidable():
  solved = solve(make({"float32": 2, "b158": 99}, seeds=2))
  about = {**ABOUT, "scale": "ci"}
  found = successes.wider(solved["float32"], solved["b158"], 1.25, **about)
  assert found.outcome == "not decidable at this scale"
