"""Verdicts about fine-tuned nets of two widths."""

import pytest

from bitnet_jax.studies import tuning
from bitnet_jax.studies.findings import Findings
from bitnet_jax.studies.runs import Runs
from tests.studies.simulated import noise, run

METRICS = {"sst2": "test/accuracy", "stsb": "test/pearson"}
SCORES = {("float32", 8): 0.7, ("b158", 8): 0.6, ("b158", 16): 0.72}


def make_runs(scores):
  return Runs(
    run(
      seed,
      cell={"task": task, "precision": precision, "width": width},
      **{metric.replace("/", "_"): score + noise(seed)},
    )
    for task, metric in METRICS.items()
    for (precision, width), score in scores.items()
    for seed in range(6)
  )


@pytest.mark.parametrize(
  ("wide", "outcome"), [(0.72, "holds"), (0.65, "does not hold")]
)
def test_wide_ternary_nets_are_compared_with_narrow_ones(wide, outcome):
  runs = make_runs(SCORES | {("b158", 16): wide})
  found = tuning.findings(runs, METRICS, claim=12, margin=1.0)
  (verdict,) = found.verdicts
  assert verdict.outcome == outcome
  assert verdict.effect == pytest.approx(100 * wide - 70)
  assert [table.name for table in found.tables] == ["sst2", "stsb"]
  twice, equal = found.figures[0].series
  assert equal.y == [pytest.approx(-10)] * 2
  assert twice.x == equal.x == ["task=sst2", "task=stsb"]


def test_findings_are_joined_in_their_order():
  runs = make_runs(SCORES)
  found = tuning.findings(runs, METRICS, claim=12, margin=1.0)
  joined = tuning.joined(found, Findings(tables=found.tables[:1]))
  assert [t.name for t in joined.tables] == ["sst2", "stsb", "sst2"]
  assert joined.verdicts == [*found.verdicts]
