"""A study that runs again is compared with its committed findings."""

import json

import pytest

from bitnet_jax.studies import again, records, running
from bitnet_jax.studies.study import FINDINGS_FILE, FINDINGS_PAGE
from tests.studies.conftest import make_record, write


def verdict(**entries):
  """Returns a verdict as ``findings.json`` has it."""
  about = {"claim": 7, "statement": "More is better", "unit": "points"}
  found = {"outcome": "holds", "effect": 0.5, "interval": [0.1, None]}
  return {**about, **found, **entries}


def compare(old, new):
  """Returns the pairs of two findings of one verdict each."""
  return [*again.pairs({"verdicts": [old]}, {"verdicts": [new]})]


@pytest.mark.parametrize(
  ("interval", "effect", "within"),
  [
    ([0.1, 0.6], 0.2, True),
    ([0.1, 0.6], 0.7, False),
    ([0.1, 0.6], 0.05, False),
    ([0.1, None], 90.0, True),
    ([None, None], -90.0, True),
    ([0.1, 0.6], None, False),
  ],
)
def test_effect_agrees_if_it_is_in_the_committed_interval(
  interval, effect, within
):
  (pair,) = compare(verdict(interval=interval), verdict(effect=effect))
  assert pair.is_within == within
  assert ("| yes |" in pair.row) == within


def test_table_shows_both_effects_and_another_verdict():
  found = compare(
    verdict(), verdict(effect=0.25, outcome="not decidable at this scale")
  )
  text = again.table(found)
  assert (
    "| 7 | More is better | 0.5 (0.1 to none) points | 0.25 | yes |"
    " not decidable at this scale |" in text
  )
  assert text.endswith("1 of 1 effects are within the committed intervals.")


def test_verdict_that_only_one_has_is_an_error():
  with pytest.raises(ValueError, match=r"verdict on claim 7, '(More|Less) is"):
    compare(verdict(), verdict(statement="Less is better"))


@pytest.fixture
def filled(study, monkeypatch):
  """Returns the small study with findings; runs give records at once."""

  def run_missing(cases, root, recorder, **options):
    found = []
    for case in cases.values():
      record = make_record(case.cell, case.seed, scale="cpu")
      found.append({**record, "case": case.name})
    write(recorder.results, found)

  monkeypatch.setattr(running, "run_missing", run_missing)
  study.run(scale="cpu", workdir=study.folder / "runs", data=study.folder)
  return study


def test_new_records_stand_apart_from_the_committed_ones(
  filled, tmp_path, capsys
):
  before = {p.name: p.read_bytes() for p in filled.folder.glob("*.*")}
  root = tmp_path / "again"
  where = {"scale": "cpu", "workdir": root, "data": filled.folder}
  assert filled.run(**where, again=True)
  assert (root / records.RESULTS_FILE).exists()
  assert (root / FINDINGS_PAGE).exists()
  assert {p.name: p.read_bytes() for p in filled.folder.glob("*.*")} == before
  assert "2 of 2 effects are within" in capsys.readouterr().out
  # An effect that was committed by mistake.
  path = filled.folder / FINDINGS_FILE
  data = json.loads(path.read_text())
  data["verdicts"][0] |= {"effect": 0.05, "interval": [0.01, 0.09]}
  path.write_text(json.dumps(data))
  assert not filled.run(**where, again=True)
  assert "1 of 2 effects are within" in capsys.readouterr().out


def test_mistakes_are_named(study, tmp_path):
  runs = {"workdir": tmp_path / "runs", "again": True}
  with pytest.raises(ValueError, match="--again needs --scale=cpu"):
    study.run(scale="ci", **runs)
  with pytest.raises(ValueError, match=r"there is no .*findings\.json"):
    study.run(scale="cpu", data=study.folder, **runs)
