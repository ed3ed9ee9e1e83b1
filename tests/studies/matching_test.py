"""Verdicts on ternary nets of equal size."""

import pytest

from bitnet_jax.studies import matching
from bitnet_jax.studies.runs import Runs
from tests.studies.simulated import noise, run


def judged(b158=0.0, median=0.0, faster=1, diverged=()):
  """Verdicts if nets differ from float32 so much, and in their speed."""
  found = []
  for net in ("mlp", "cnn"):
    for precision, less in (
      ("float32", 0.0),
      ("b158", b158),
      ("b158_median", median),
    ):
      cell = {"data": "mnist", "net": net, "epochs": 10, "precision": precision}
      every = 10 // (faster if precision == "b158_median" else 1)
      for seed in range(6):
        steps = [every * i for i in range(1, 9)]
        values = [0.5 + 0.05 * i for i in range(8)]
        simulated = run(
          seed,
          cell=cell,
          curves={"step": steps, "valid/accuracy": values},
          diverged=1 if (net, precision, seed) in diverged else None,
          test_accuracy=0.97 + less + noise(seed * len(precision)),
        )
        simulated.record.update(step=80, epochs=10, num_params=1)
        found.append(simulated)
  findings = matching.findings(
    Runs(found),
    metric="accuracy",
    margins={"mnist": 0.5},
    chance={"mnist": 10.0},
    equal=0.5,
  )
  findings.data(study="s", title="t", scale="cpu", records=len(found))
  return findings


def test_nets_that_are_as_good_and_as_fast_match():
  found = judged()
  match, faster, equal = found.verdicts
  assert match.outcome == equal.outcome == "holds"
  assert faster.outcome == "equivalent within the margin"
  assert [cell.name for cell in match.cells] == [
    "data=mnist, net=cnn, epochs=10",
    "data=mnist, net=mlp, epochs=10",
  ]


def test_nets_that_are_worse_or_faster_are_found():
  match, faster, equal = judged(b158=-0.02, median=0.01, faster=2).verdicts
  assert match.outcome == equal.outcome == "does not hold"
  assert match.effect == pytest.approx(-2, abs=0.2)
  assert faster.outcome == "holds"
  assert faster.effect == pytest.approx(-1)


def test_run_that_diverged_counts_as_chance():
  found = judged(diverged=[("cnn", "b158", 2)])
  assert found.verdicts[0].outcome == "not decidable at this scale"
  assert "a diverged run counts as 10: seed 2" in found.verdicts[0].reason


def test_cases_have_a_rate_for_each_side():
  net = matching.Net("xor_mlp.py", {"data.source": "f:{data}/x"}, (1.0, 2.0), 5)
  cases = matching.cases({("xor", "mlp", 3): net}, data="D", seeds=2)
  assert len({case.name for case in cases}) == 6
  assert [case.overrides["optim.learning_rate"] for case in cases[::2]] == [
    1.0,
    2.0,
    2.0,
  ]
  assert cases[0].overrides["data.source"] == "f:D/x"
  assert cases[0].overrides["eval_every"] == 5
