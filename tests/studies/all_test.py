"""Every study: it runs at "ci", and its page is that of its records."""

import functools
import json
import runpy
import shutil

import matplotlib
import pytest

from bitnet_jax.studies import page, records, running, study
from bitnet_jax.train.config.settings import parse_settings
from bitnet_jax.train.tasks.registry import TASKS
from tests.train.conftest import ROOT

LONGEST = 80  # lines of a run.py
FEWEST = 5  # seeds of a verdict
FOLDERS = sorted(
  path.parent
  for path in (ROOT / "experiments").glob("*/run.py")
  if "\nSTUDY = " in path.read_text(encoding="utf-8")
)
RECORDED = [f for f in FOLDERS if (f / records.RESULTS_FILE).exists()]
# Also those that read the records of the others.
DRAWN = [f for f in FOLDERS if (f / study.FINDINGS_FILE).exists()]
each = pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
recorded = pytest.mark.parametrize("folder", RECORDED, ids=lambda f: f.name)
drawn = pytest.mark.parametrize("folder", DRAWN, ids=lambda f: f.name)


def load(folder):
  """Returns the study of a folder."""
  return runpy.run_path(f"{folder / 'run.py'}")["STUDY"]


@functools.cache
def records_of(folder):
  """Returns the committed records of a study."""
  return records.load(folder / records.RESULTS_FILE)


def test_there_are_studies():
  assert {"xor", "zeros"} <= {folder.name for folder in FOLDERS}


@each
def test_run_file_is_short_and_its_page_has_a_plan(folder):
  lines = (folder / "run.py").read_text(encoding="utf-8").splitlines()
  assert len(lines) <= LONGEST
  text = load(folder).page()
  assert page.title(text).endswith("?")
  assert page.claims(text)
  plan = text.partition(page.PLAN_END)[0].lower()
  for word in ("cells", "seeds", "metric", "margin", "ci", "cpu", "paper"):
    assert word in plan, word


@pytest.mark.slow
@each
def test_study_runs_at_ci_and_says_something_on_each_claim(
  folder, tmp_path, monkeypatch
):
  monkeypatch.delenv(study.DATA_VARIABLE, raising=False)
  copy = tmp_path / folder.name
  copy.mkdir()
  for name in ("run.py", page.PAGE_FILE):
    shutil.copy(folder / name, copy)
  small = load(copy)
  small.run(scale="ci", workdir=tmp_path / "runs")
  found = json.loads((tmp_path / "runs" / study.FINDINGS_FILE).read_text())
  assert found["claims"] == page.claims(small.page())
  assert found["tables"] and found["figures"]
  assert not (copy / records.RESULTS_FILE).exists()
  assert (copy / page.PAGE_FILE).read_bytes() == (
    folder / page.PAGE_FILE
  ).read_bytes()


@each
def test_cases_of_the_other_scales_are_configs(folder):
  found = load(folder)
  for scale in ("cpu", "paper"):
    cases = found.cases_of(scale, "DATA")
    by_cell = {json.dumps(dict(case.cell)): case for case in cases.values()}
    for case in [*by_cell.values()][:: max(1, len(by_cell) // 8)]:
      parse_settings(running.config_of(case, ROOT / "runs"), TASKS)


def check_equal(found, expected, place=""):
  """Checks that two contents of findings.json have the same numbers.

  Fits of other versions of scipy differ by one in the last of five digits.
  """
  if isinstance(expected, dict):
    assert found.keys() == expected.keys(), place
    for key, value in expected.items():
      check_equal(found[key], value, f"{place}.{key}")
  elif isinstance(expected, list):
    assert len(found) == len(expected), place
    for i, value in enumerate(expected):
      check_equal(found[i], value, f"{place}[{i}]")
  elif isinstance(expected, float):
    assert found == pytest.approx(expected, rel=1.01e-4, abs=1e-9), place
  else:
    assert found == expected, place


@drawn
def test_findings_are_those_of_the_records(folder):
  found = load(folder).found(study.COMMITTED, folder)
  shown = (folder / study.FINDINGS_FILE).read_text(encoding="utf-8")
  check_equal(json.loads(json.dumps(found)), json.loads(shown))


@drawn
def test_page_and_figures_are_those_of_the_findings(folder):
  data = json.loads((folder / study.FINDINGS_FILE).read_text(encoding="utf-8"))
  texts = load(folder).drawn(data, folder)
  for name, text in texts.items():
    shown = (folder / name).read_text(encoding="utf-8")
    # Other versions of matplotlib draw other paths.
    if name.endswith(".svg") and f"v{matplotlib.__version__}" not in shown:
      continue
    assert shown == text, name
  figures = {path.name for path in folder.glob("*.svg")}
  assert figures == {name for name in texts if name.endswith(".svg")}


@recorded
def test_no_plan_is_younger_than_its_records(folder):
  plan = page.stamp(load(folder).page())
  assert {record["plan"] for record in records_of(folder)} == {plan}


@recorded
def test_records_are_those_of_the_cases_and_have_complete_configs(folder):
  found = load(folder)
  cases = found.cases_of(study.COMMITTED, "DATA")
  names = [record["case"] for record in records_of(folder)]
  assert sorted(names) == sorted({*names} & {*cases})
  assert {r["study"] for r in records_of(folder)} == {folder.name}
  assert {r["scale"] for r in records_of(folder)} == {study.COMMITTED}
  parsed = set()
  for record in records_of(folder):
    assert record["config"].get("seed", 0) == record["seed"]
    text = json.dumps({**record["config"], "seed": 0})
    if text not in parsed:  # Thousands of them differ in the seed only.
      running.check_same(cases[record["case"]], record, folder)
      parse_settings(records.expand(record["config"]), TASKS)
      parsed.add(text)


@drawn
def test_no_verdict_rests_on_few_seeds(folder):
  path = folder / study.FINDINGS_FILE
  found = json.loads(path.read_text(encoding="utf-8"))
  assert found["claims"] == page.claims(load(folder).page())
  for verdict in found["verdicts"]:
    assert verdict["seeds"] >= FEWEST
    assert verdict["scale"] == study.COMMITTED
