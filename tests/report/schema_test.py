"""The schema of records: what it takes, and what it says of the others."""

import json

import pytest

from bitnet_jax import report
from bitnet_jax.report import schema
from tests.report import synthetic


@pytest.fixture
def write(tmp_path):
  """Returns ``write(*records)``: the path of a file with them."""

  def write(*records):
    path = tmp_path / "mine.jsonl"
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("\n".join(lines) + "\n")
    return path

  return write


def good(**more):
  """Returns a record that fits."""
  return {**synthetic.record("mine", {"precision": "b158"}, 0), **more}


def test_records_that_fit_are_returned_with_their_lines(write):
  found = report.check_file(f"{write(good(), '', good(seed=1, x=3))}")
  assert [number for number, _ in found] == [1, 3]
  assert found[1][1]["x"] == 3


def test_diverged_run_needs_no_metrics(write):
  report.check_file(write(good(metrics={}, diverged=3)))
  with pytest.raises(report.RecordError, match="key metrics: it is empty"):
    report.check_file(write(good(metrics={})))


def test_record_with_required_keys_alone_fits(write):
  keys = json.loads(schema.schema_text())["required"]
  report.check_file(write({key: good()[key] for key in keys}))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"seed": "0"}, "key seed: '0' is not of type 'integer'"),
    ({"seed": -1}, "key seed: -1 is less than the minimum of 0"),
    ({"schema": "other/2"}, "key schema: it is 'other/2', not"),
    ({"metrics": {"a": "b"}}, "key metrics.a: 'b' is not of type"),
    ({"metrics": {"a": float("nan")}}, "key metrics.a: it is not a finite"),
    ({"config": {"model": {}}}, "key config.model.name: it is missing"),
    ({"config": {"model": {}}}, "key config.task: it is missing"),
    ({"curves": {"a": [1]}}, "key curves.step: it is missing"),
    ({"curves": {"step": [1], "a": [1, 2]}}, "key curves.a: it has 2 values"),
    (
      {"layers": {"a": {"zeros": 0.5, "negative": 0.1, "positive": 0.1}}},
      "key layers.a: its fractions sum to 0.7, not 1",
    ),
    (
      {"layers": {"a": {"zeros": 2, "negative": 0, "positive": 0}}},
      "key layers.a.zeros: 2 is greater than the maximum of 1",
    ),
  ],
)
def test_fault_is_told_of_with_line_and_key(write, change, message):
  path = write(good(), good(**change))
  with pytest.raises(report.RecordError) as caught:
    report.check_file(path)
  assert f"{path}, line 2, {message}" in f"{caught.value}"
  assert "line 1" not in f"{caught.value}"


def test_missing_key_and_broken_lines_are_all_told_of(write):
  record = good()
  record.pop("cell")
  with pytest.raises(report.RecordError) as caught:
    report.check_file(write(record, '{"a"', "[]", '{"a": 1, "a": 2}'))
  lines = f"{caught.value}".splitlines()
  assert [line.partition("line ")[2][:1] for line in lines] == [*"1234"]
  assert lines[0].endswith("key cell: it is missing")
  assert "it is no record" in lines[1]
  assert "it is no object" in lines[2]
  assert "'a' appears twice" in lines[3]


def test_long_lists_of_faults_are_cut(write):
  with pytest.raises(report.RecordError) as caught:
    report.check_file(write(*[good(seed="x")] * 25))
  assert f"{caught.value}".splitlines()[-1] == "and 5 more"


def test_file_without_records_is_an_error(write, tmp_path):
  with pytest.raises(report.RecordError, match="holds no record"):
    report.check_file(write(""))
  with pytest.raises(FileNotFoundError):
    report.check_file(tmp_path / "none.jsonl")


def test_schema_is_valid_and_describes_the_records_of_studies():
  import jsonschema

  found = json.loads(schema.schema_text())
  jsonschema.Draft202012Validator.check_schema(found)
  assert not list(schema.faults_of(good()))
  # Each entry that studies write is described.
  from bitnet_jax.studies import records

  assert {*records._ENTRIES} <= {*found["properties"]}
