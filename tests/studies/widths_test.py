"""Verdicts on how much wider ternary nets must be."""

import math

import pytest

from bitnet_jax.studies import widths
from tests.studies.simulated import runs


def judged(factor, wide=(8, 16, 32, 64)):
  """Verdicts if a ternary net learns as one that is narrower by a factor."""
  cells = [
    ({"data": "books", "precision": precision, "width": width}, 2 + 8 / size)
    for width in wide
    for precision, size in (
      ("float32", width),
      ("float32_norm", 2 * width),
      ("b158", width / factor),
    )
  ]
  found = widths.findings(
    runs(cells),
    claim=1,
    metric="valid/loss",
    margin=0.02,
    worst=math.log(512),
    bounds=(1.5, 3.0),
    further=(256,),
  )
  found.data(study="s", title="t", scale="cpu", records=len(cells))
  return found


def test_nets_that_need_twice_the_width_are_found():
  found = judged(2)
  assert [v.outcome for v in found.verdicts] == ["holds"] * 3
  ratio = found.verdicts[2]
  assert ratio.effect == pytest.approx(2, rel=0.15)
  kinds = {tuple(row[2:4]): row[4] for row in found.tables[1].rows}
  further = "width 256, power"
  assert kinds["float32", further] == pytest.approx(2, rel=0.05)
  assert kinds["float32_norm", further] == pytest.approx(4, rel=0.05)


def test_nets_as_good_as_full_precision_contradict_the_claim():
  first, second, third = judged(1).verdicts
  assert first.outcome != "holds"
  assert second.outcome == "holds"
  assert third.outcome == "does not hold"


def test_ratio_is_not_decidable_if_no_loss_is_reached_by_both():
  _, double, ratio = judged(100).verdicts
  assert double.outcome == "does not hold"
  assert ratio.outcome == "not decidable at this scale"
  assert "books: no loss in common" in ratio.reason
