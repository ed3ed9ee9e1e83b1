"""Verdicts: the rules by hand, and how often simulated studies are right."""

import json
import math
from typing import NamedTuple

import numpy as np
import pytest

from bitnet_jax.analysis import estimates, pairs, proportions, verdicts
from bitnet_jax.analysis.distributions import Limits
from tests.analysis.simulation import paired, runs

HOLDS, NOT, SAME, OPEN = verdicts.OUTCOMES
REPEATS = 100


def decide(rule, cells, *, scale="cpu", **options):
  return verdicts.verdict(
    rule, cells, claim=4, statement="A beats B", scale=scale, **options
  )


class Ends(NamedTuple):
  """A distribution whose 95 % interval has these ends; others are wider."""

  low: float
  high: float

  def estimate(self, seeds=10):
    center, half = (self.low + self.high) / 2, (self.high - self.low) / 2

    def limit(p):
      return (
        center + half * math.log(p / (1 - p)) / math.log(39)
        if 0 < p < 1
        else (math.copysign(math.inf, p - 0.5))
      )

    return estimates.Estimate(center, seeds, Limits(limit))


@pytest.mark.parametrize(
  ("rule", "ends", "outcome"),
  [
    ("better", (0.5, 3.0), HOLDS),
    ("better", (-0.5, 3.0), OPEN),
    ("better", (-2.0, 3.0), OPEN),
    ("better", (-0.5, 0.5), SAME),
    ("better", (0.1, 0.9), SAME),
    ("better", (-3.0, 0.9), NOT),
    ("better", (-3.0, -2.0), NOT),
    ("no worse", (-0.9, 5.0), HOLDS),
    ("no worse", (-0.9, 0.5), HOLDS),
    ("no worse", (2.0, 5.0), HOLDS),
    ("no worse", (-1.1, 5.0), OPEN),
    ("no worse", (-3.0, 0.5), OPEN),
    ("no worse", (-3.0, -1.1), NOT),
    ("equal", (-0.9, 0.9), HOLDS),
    ("equal", (0.1, 1.1), OPEN),
    ("equal", (-1.1, 1.1), OPEN),
    ("equal", (1.1, 2.0), NOT),
    ("equal", (-2.0, -1.1), NOT),
  ],
)
def test_outcome_of_an_interval_with_a_margin_of_one(rule, ends, outcome):
  cell = Ends(*ends).estimate()
  found = decide(rule, cell, margin=1.0, better="higher")
  assert found.outcome == outcome
  assert found.interval == pytest.approx(ends, abs=1e-6)
  mirrored = Ends(-ends[1], -ends[0]).estimate()
  assert decide(rule, mirrored, margin=1.0, better="lower").outcome == outcome
  assert (found.seeds_needed is not None) == (outcome == OPEN)


@pytest.mark.parametrize(
  ("ends", "outcome"),
  [
    ((1.5, 2.5), HOLDS),
    ((0.9, 2.5), OPEN),
    ((0.5, 3.5), OPEN),
    ((0.5, 0.9), NOT),
    ((3.1, 5.0), NOT),
  ],
)
def test_outcome_of_an_interval_and_a_range(ends, outcome):
  cell = Ends(*ends).estimate()
  assert decide("in range", cell, bounds=(1.0, 3.0)).outcome == outcome
  above = decide("in range", cell, bounds=(1.0, math.inf)).outcome
  assert above == (HOLDS if ends[0] > 1 else NOT if ends[1] < 1 else OPEN)


def test_without_a_margin_better_is_decided_by_the_sign():
  for ends, outcome in [((0.1, 1), HOLDS), ((-1, -0.1), NOT), ((-1, 1), OPEN)]:
    cell = Ends(*ends).estimate()
    assert decide("better", cell, better="higher").outcome == outcome


def by_hand(rule, low, high, margin):
  """Returns the outcome by the table of docs/statistics.md."""
  if rule == "better":
    if high < margin:
      return SAME if low > -margin else NOT
    return HOLDS if low > 0 else OPEN
  if rule == "no worse":
    return HOLDS if low > -margin else NOT if high < -margin else OPEN
  if -margin < low and high < margin:
    return HOLDS
  return NOT if low > margin or high < -margin else OPEN


def test_outcome_is_read_off_the_interval_that_is_printed():
  rng = np.random.default_rng(0)
  seen = set()
  for _ in range(150):
    count = int(rng.integers(5, 12))
    effect, noise = rng.normal(0, 0.02), 10 ** rng.uniform(-3.5, -1)
    if rng.random() < 0.3:
      values = (rng.random((2, count)) < 0.5 + 10 * effect).astype(float)
      cell, margin = proportions.difference(paired(*values)), 0.3
    else:
      cell, margin = runs(rng, count, effect, noise), 0.01
    for rule in ("better", "no worse", "equal"):
      found = decide(rule, cell, margin=margin, better="higher")
      assert found.outcome == by_hand(rule, *found.interval, margin)
      seen.add((rule, found.outcome))
  assert len(seen) == 4 + 3 + 3


CELLS = {
  "holds": (0.5, 3.0),
  "not": (-3.0, -2.0),
  "same": (-0.5, 0.5),
  "open": (-2.0, 3.0),
  "weak": (0.01, 3.0),  # Holds by itself, but not after Holm's correction.
}


@pytest.mark.parametrize(
  ("combine", "cells", "outcome"),
  [
    ("all", "holds holds holds", HOLDS),
    ("all", "holds weak weak", HOLDS),
    ("all", "holds holds open", OPEN),
    ("all", "holds holds not", NOT),
    ("all", "holds holds same", NOT),
    ("all", "same same same", SAME),
    ("any", "open open holds", HOLDS),
    ("any", "open open weak", OPEN),
    ("any", "not same not", NOT),
    ("any", "same same same", SAME),
    ("any", "not not open", OPEN),
    ("most", "holds holds not", HOLDS),
    ("most", "holds weak not", OPEN),
    ("most", "holds open open", OPEN),
    ("most", "holds not not", NOT),
    ("most", "holds same not holds", NOT),
    ("most", "same same holds", SAME),
  ],
)
def test_outcome_over_cells(combine, cells, outcome):
  names = cells.split()
  found = decide(
    "better",
    {
      f"{i} {name}": Ends(*CELLS[name]).estimate()
      for i, name in enumerate(names)
    },
    combine=combine,
    margin=1.0,
    better="higher",
  )
  assert found.outcome == outcome
  assert [cell.name.split()[1] for cell in found.cells] == names
  assert f"{combine} of {len(names)} cells" in found.reason


def test_effect_over_cells_is_that_of_the_deciding_cell():
  cells = {str(i): Ends(i - 1, i + 1).estimate() for i in range(5)}
  for combine, effect in [("all", 0), ("most", 2), ("any", 4)]:
    found = decide("better", cells, combine=combine, better="higher")
    assert found.effect == effect
    found = decide("better", cells, combine=combine, better="lower")
    assert found.effect == 4 - effect
  found = decide("equal", cells, combine="all", margin=1.0)
  assert found.effect == 4
  found = decide("in range", cells, combine="all", bounds=(3.0, 5.0))
  assert found.effect == 0
  found = decide("in range", cells, combine="all", bounds=(-math.inf, 5.0))
  assert found.effect == 4


def test_mean_over_cells_is_by_seed():
  rng = np.random.default_rng(0)
  wide = rng.normal(size=8)  # The cells' differences cancel within a seed.
  one, two = paired(0.5 + wide, np.zeros(8)), paired(0.5 - wide, np.zeros(8))
  found = decide("better", {"a": one, "b": two}, better="higher")
  assert found.outcome == HOLDS and found.effect == pytest.approx(0.5)
  assert found.interval == pytest.approx((0.5, 0.5))
  with pytest.raises(ValueError, match="'b' is an estimate, but a mean"):
    decide("better", {"a": one, "b": estimates.mean(two)}, better="higher")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_no_verdict_from_fewer_than_five_seeds(count):
  few = runs(np.random.default_rng(0), count, 0.5)
  with pytest.raises(verdicts.TooFewSeedsError, match=f"seeds: {count}, but"):
    decide("better", few, better="higher")
  enough = runs(np.random.default_rng(0), 5, 0.5)
  with pytest.raises(verdicts.TooFewSeedsError):
    decide("better", {"a": enough, "b": few}, combine="all", better="higher")
  found = decide("better", few, better="higher", scale="ci")
  assert found.outcome == OPEN and found.seeds == count
  assert found.reason == f"seeds: {count}, but a verdict needs at least 5"


def test_several_verdicts_on_a_claim_share_its_error():
  sample = runs(np.random.default_rng(0), 10, 0.02)
  alone = decide("better", sample, better="higher")
  one = decide("better", sample, better="higher", comparisons=4)
  assert one.level == pytest.approx(1 - 0.05 / 4)
  assert one.interval == estimates.mean(sample).interval(one.level)
  assert one.interval[0] < alone.interval[0]


def test_what_the_data_do_not_determine_is_not_decidable():
  unknown = estimates.unknown(10, "no loss in common")
  found = decide("in range", unknown, bounds=(1.5, 3.0))
  assert found.outcome == OPEN and found.seeds_needed is None
  assert "no loss in common" in found.reason
  record = json.loads(json.dumps(found.as_json(), allow_nan=False))
  assert record["effect"] is None and record["interval"] == [None, None]
  known = Ends(2.0, 2.5).estimate()
  for other, outcome in ((known, OPEN), (Ends(5.0, 6.0).estimate(), NOT)):
    cells = {"a": unknown, "b": other}
    found = decide("in range", cells, bounds=(1.5, 3.0), combine="all")
    assert found.outcome == outcome


def test_json_of_a_verdict():
  sample = pairs.pair(
    {s: 0.9 for s in range(7)} | {6: None},
    {s: 0.8 + 0.001 * s for s in range(7)},
    diverged="exclude",
  )
  found = decide(
    "better", {"h": sample}, better="higher", margin=0.01, unit="accuracy"
  )
  record = json.loads(json.dumps(found.as_json(), allow_nan=False))
  assert list(record) == [
    "claim",
    "statement",
    "outcome",
    "effect",
    "interval",
    "unit",
    "level",
    "seeds",
    "scale",
    "cells",
    "seeds_needed",
    "reason",
  ]
  assert record["outcome"] == HOLDS and record["seeds"] == 6
  assert record["cells"][0]["interval"] == record["interval"]
  assert record["reason"] == (
    "the difference is in favor of the claim; left out, a run diverged: seed 6"
  )
  single = decide(
    "better", runs(np.random.default_rng(0), 1, 0), better="lower", scale="ci"
  )
  assert single.as_json()["interval"] == [None, None]


@pytest.mark.parametrize(
  ("rule", "options", "message"),
  [
    ("best", {}, "rule is 'best', which is not one of: 'better'"),
    ("better", {}, "better is None"),
    ("better", {"better": "up"}, "better is 'up'"),
    ("better", {"better": "lower", "margin": -1.0}, r"margin is -1\.0"),
    ("equal", {}, r"margin is 0\.0, but the rule 'equal' needs a positive"),
    ("no worse", {"better": "lower"}, r"margin is 0\.0"),
    ("in range", {}, "bounds are None"),
    ("in range", {"bounds": (2.0, 1.0)}, "bounds are"),
    ("better", {"better": "lower", "combine": "some"}, "combine is 'some'"),
    ("better", {"better": "lower", "level": 95}, "level is 95"),
    ("better", {"better": "lower", "comparisons": 0}, "comparisons is 0"),
  ],
)
def test_bad_questions_are_named(rule, options, message):
  sample = runs(np.random.default_rng(0), 5, 0)
  with pytest.raises(ValueError, match=message):
    decide(rule, sample, **options)
  with pytest.raises(ValueError, match="claim 4: no cells"):
    decide("better", {}, better="lower")


def outcomes(rule, effect, *, count, cells=1, noise=0.01, **options):
  """Returns how often each outcome is found in simulated studies."""
  rng = np.random.default_rng(count + cells)
  found = [
    decide(
      rule,
      {str(i): runs(rng, count, effect, noise) for i in range(cells)},
      **options,
    ).outcome
    for _ in range(REPEATS)
  ]
  return {outcome: found.count(outcome) for outcome in verdicts.OUTCOMES}


@pytest.mark.parametrize("count", [5, 10])
def test_known_effects_get_the_right_verdict(count):
  options = {"count": count, "margin": 0.01, "better": "higher"}
  assert outcomes("better", 0.05, **options)[HOLDS] >= 95
  assert outcomes("better", -0.05, **options)[NOT] >= 95
  assert outcomes("no worse", 0.03, **options)[HOLDS] >= 95
  assert outcomes("no worse", -0.05, **options)[NOT] >= 95
  assert outcomes("equal", 0.05, **options)[NOT] >= 95
  options["noise"] = 0.002
  assert outcomes("equal", 0.0, **options)[HOLDS] >= 95
  assert outcomes("better", 0.0, **options)[SAME] >= 95


@pytest.mark.parametrize("combine", ["mean", "all", "most", "any"])
@pytest.mark.parametrize(
  "noise", [0.004, pytest.param(0.02, marks=pytest.mark.slow)]
)
def test_without_an_effect_wrong_verdicts_are_rare(combine, noise):
  options = {"count": 6, "cells": 4, "combine": combine, "noise": noise}
  better = {"margin": 0.01, "better": "higher"} | options
  assert outcomes("better", 0.0, **better)[HOLDS] <= 5
  # At the margin, where an error is likeliest: 2.5 %, and 3.5 deviations.
  assert outcomes("no worse", -0.01, **better)[HOLDS] <= 8
  assert outcomes("equal", 0.01, margin=0.01, **options)[HOLDS] <= 8
  assert outcomes("better", 0.01, **better)[SAME] <= 8


def test_claims_over_success_rates_are_decided():
  rng = np.random.default_rng(0)
  first = (rng.random(40) < 0.95).astype(float)
  second = (rng.random(40) < 0.4).astype(float)
  cell = proportions.difference(paired(first, second))
  found = decide("better", cell, better="higher", margin=0.1)
  assert found.outcome == HOLDS and found.seeds == 40
  cell = proportions.difference(paired(np.ones(10), np.ones(10)))
  found = decide("equal", cell, margin=0.1)
  assert found.outcome == OPEN and found.seeds_needed > 30


def test_seeds_needed_over_cells_are_those_of_the_cells_that_are_open():
  values = np.array([-1.0, 1.0, -1.0, 1.0, 0.0])
  cells = {  # The open cell has a larger effect than one that is decided.
    "a": paired(0.02 + 0.001 * values, np.zeros(5)),
    "b": paired(0.02 + 0.001 * values, np.zeros(5)),
    "c": paired(0.03 + 0.1 * values, np.zeros(5)),
    "d": paired(0.03 + 0.2 * values, np.zeros(5)),
  }
  needed = {}
  for combine in ("all", "most", "any"):
    found = decide("better", cells, combine=combine, better="higher")
    needed[combine] = found.seeds_needed
  wide = decide("better", cells["d"], better="higher", comparisons=4)
  mean = decide("better", cells["c"], better="higher", comparisons=4)
  assert needed == {
    "all": wide.seeds_needed,
    "most": mean.seeds_needed,
    "any": None,
  }
  assert wide.seeds_needed > mean.seeds_needed > 50


def test_seeds_needed_decide_the_question():
  options = {"margin": 0.01, "better": "higher"}
  values = 0.006 + 0.02 * np.array([-1.0, 1.0, -1.0, 1.0, 0.0])
  found = decide("better", paired(values, np.zeros(5)), **options)
  assert found.outcome == OPEN and found.seeds_needed > 20
  # Many seeds with the effect and the deviation that were found.
  rng = np.random.default_rng(1)
  noise = values.std(ddof=1) / math.sqrt(2)
  outcomes = [
    decide(
      "better", runs(rng, found.seeds_needed, found.effect, noise), **options
    ).outcome
    for _ in range(100)
  ]
  assert 1 - outcomes.count(OPEN) / 100 > 0.7
