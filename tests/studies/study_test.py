"""A study runs what is missing, draws its findings, and names mistakes."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from bitnet_jax import studies
from bitnet_jax.studies import page, records, running
from tests.studies.conftest import PAGE, make_record, write
from tests.train.conftest import ROOT

RUN = """
from bitnet_jax import program

from bitnet_jax import studies
from tests.studies.conftest import cases, findings

STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
"""


def fill(study, **entries):
  """Writes records of two runs at the scale "cpu"."""
  path = study.folder / records.RESULTS_FILE
  found = [make_record({"rate": rate}, 0, **entries) for rate in (0.01, 0.1)]
  write(path, found)
  return path


def test_study_runs_its_cases_once_and_records_divergence(study, tmp_path):
  study.run(scale="ci", workdir=tmp_path / "runs")
  results = tmp_path / "runs" / records.RESULTS_FILE
  found = running.known(results, "ci")
  first, second = found["rate=0.01,seed=0"], found["rate=1e%2B38,seed=0"]
  assert first["plan"] == page.stamp(PAGE)
  assert first["step"] == 4
  assert {"test/accuracy", "valid/loss"} <= {*first["metrics"]}
  assert first["curves"]["step"] == [2, 4]
  assert {*first["layers"]} == {"layer_0", "head"}
  assert first["diverged"] is None
  assert second["diverged"] in (2, 3, 4)
  assert second["metrics"] == {}
  assert second["run_id"] != first["run_id"]
  assert all(len(json.dumps(record)) < 2000 for record in found.values())
  before = results.read_bytes()
  study.run(scale="ci", workdir=tmp_path / "runs")
  assert results.read_bytes() == before
  assert not (study.folder / records.RESULTS_FILE).exists()
  drawn = json.loads((tmp_path / "runs" / "findings.json").read_text())
  assert drawn["records"] == 2
  assert drawn["claims"] == [7, "outside-1"]
  assert (tmp_path / "runs" / "runs.svg").exists()


def test_drawing_is_deterministic_and_keeps_plan_and_remarks(study):
  fill(study)
  study.draw(scale="cpu")
  text = (study.folder / page.PAGE_FILE).read_text(encoding="utf-8")
  assert page.stamp(text) == page.stamp(PAGE)
  assert text.endswith("Remarks stay.\n")
  assert "| 7 | More is better | **holds** | 0.512 [0.1, none] points" in text
  assert "| rate | runs (1) |" in text
  assert "![Runs by rate](runs.svg)" in text
  svg = (study.folder / "runs.svg").read_bytes()
  xml.etree.ElementTree.fromstring(svg)
  assert len(svg) < 30_000
  assert b"<dc:date>" not in svg
  study.draw(scale="cpu")
  assert (study.folder / "runs.svg").read_bytes() == svg
  assert (study.folder / page.PAGE_FILE).read_text(encoding="utf-8") == text


def test_numbers_of_findings_are_few_digits_and_finite(study):
  fill(study)
  data = study.found("cpu", study.folder)
  assert data["verdicts"][0]["effect"] == 0.51235
  assert data["verdicts"][0]["interval"] == [0.1, None]


def test_a_plan_that_changed_after_its_records_is_an_error(study, tmp_path):
  fill(study)
  path = study.folder / page.PAGE_FILE
  path.write_text(PAGE.replace("two", "three"), encoding="utf-8")
  with pytest.raises(ValueError, match=r"the plan is .*2 of 2 records"):
    study.draw(scale="cpu")
  path.write_text(PAGE.replace("Remarks stay", "Others"), encoding="utf-8")
  study.draw(scale="cpu")


def test_a_record_of_another_config_is_an_error(study, tmp_path):
  results = tmp_path / "runs" / records.RESULTS_FILE
  results.parent.mkdir()
  write(results, [make_record({"rate": 0.01}, 0, scale="ci")])
  with pytest.raises(
    ValueError, match=r"another run of the case rate=0\.01,see"
  ):
    study.run(scale="ci", workdir=tmp_path / "runs")


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    ({"scale": "unknown"}, "--scale is 'unknown'.*'ci', 'cpu', 'paper'"),
    ({"only": "width"}, "--only=width is a part of no case.*rate=0.01,seed=0"),
    ({"scale": "cpu"}, "no folder of data sets.*BITNET_JAX_DATA.*--scale=ci"),
    ({"scale": "cpu", "data": "/none"}, "--data=/none is no folder"),
    ({"workers": 0}, "--workers=0"),
  ],
)
def test_mistakes_are_errors_that_name_the_choices(
  study, tmp_path, arguments, said
):
  arguments = {"scale": "ci", "workdir": tmp_path / "runs", **arguments}
  with pytest.raises(ValueError, match=said):
    study.run(**arguments)
  assert not (tmp_path / "runs" / records.RESULTS_FILE).exists()


@pytest.mark.parametrize(
  ("text", "said"),
  [
    (PAGE.replace(page.END, ""), "must have the line <!-- end --> once"),
    (PAGE + page.START + "\n", "it has it 2 times"),
    (
      PAGE.replace(page.PLAN_END, "").replace(
        page.END, f"{page.END}\n{page.PLAN_END}"
      ),
      "in this order",
    ),
  ],
)
def test_readme_without_its_markers_is_an_error(study, text, said):
  fill(study)
  (study.folder / page.PAGE_FILE).write_text(text, encoding="utf-8")
  with pytest.raises(ValueError, match=said):
    study.draw(scale="cpu")


def test_claims_of_a_plan_are_read_from_its_line():
  assert page.claims(PAGE) == [7, "outside-1"]
  assert page.claims("# T\n\n- **Claim:** 18 (1.58 bits, section 4)\n") == [18]
  with pytest.raises(ValueError, match="no line such as"):
    page.claims("# T\n")


def test_findings_of_other_lengths_and_names_are_errors(study):
  column = studies.Column("a")
  with pytest.raises(ValueError, match="has 2 values for 1 columns"):
    studies.Table("t", "T", [column], [[1, 2]]).data()
  with pytest.raises(ValueError, match="lowercase"):
    studies.Table("A b", "T", [column], []).data()
  axis = studies.Axis("x")
  with pytest.raises(
    ValueError, match="is 'pie', which is not one of: 'lines'"
  ):
    studies.Figure("f", "F", "pie", axis, axis, []).data()
  series = studies.Series("s", [1], [1, 2])
  with pytest.raises(ValueError, match="has 1 values x and 2 values y"):
    studies.Figure("f", "F", "lines", axis, axis, [series]).data()


def call(study, *arguments):
  """Calls a study as a program."""
  run = study.folder / "run.py"
  run.write_text(f'"""A small study."""\n{RUN}', encoding="utf-8")
  env = {**os.environ, "PYTHONPATH": f"{ROOT}"}
  return subprocess.run(
    [sys.executable, run, *arguments], env=env, capture_output=True, text=True
  )


def test_program_ends_mistakes_with_one_line(study):
  failed = call(study, "--scale=big", "--workdir=runs")
  assert failed.returncode == 1
  assert failed.stderr.startswith("error: --scale is 'big'")
  assert failed.stderr.count("\n") == 1


@pytest.mark.slow
def test_program_draws_and_shows_its_flags(study):
  fill(study)
  done = call(study, "--findings")
  assert done.returncode == 0, done.stderr
  assert "README.md" in done.stdout + done.stderr
  help_text = call(study, "--help").stdout
  assert "A small study." in help_text
  names = {"scale", "data", "workdir", "workers", "only", "findings", "again"}
  names.add("compile")
  assert set(re.findall(r"--(\w+)", help_text)) == names
