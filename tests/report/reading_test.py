"""Reads studies: old and new records, damaged files, and those of others."""

import json

import pytest

from bitnet_jax import report
from bitnet_jax.report import leaderboard, links, reading, runs
from tests.report import synthetic


def _append(folder, *lines):
  with (folder / "results.jsonl").open("a") as file:
    file.write("".join(lines))


def test_study_has_title_claims_runs_and_plan(studies):
  (study,) = reading.find(studies).studies
  assert study.title.startswith("Does study 0 show")
  assert study.claims == [1, 2, "outside-1"]
  assert [run.line for run in study.runs] == [1, 2, 3, 4]
  assert study.runs[0].file == "study_0/results.jsonl"
  assert study.distinct("family") == ["mlp"]
  assert study.distinct("recipe") == [
    "b158",
    "b158_median",
    "bfloat16",
    "float32",
  ]
  assert "Claims: 1, 2" in study.plan
  assert study.remarks.strip() == "It ended <b>early</b> & well."


@pytest.mark.parametrize("end", ["", "\n"])
def test_last_line_that_is_cut_off_is_left_out_with_a_note(studies, end):
  _append(studies / "study_0", '{"schema": "bitnet', end)
  before = (studies / "study_0" / "results.jsonl").read_bytes()
  found = reading.find(studies)
  assert len(found.studies[0].runs) == 4
  (note,) = found.notes
  assert note.startswith("study_0/results.jsonl, line 5 is cut off")
  assert (studies / "study_0" / "results.jsonl").read_bytes() == before


def test_damaged_line_before_the_last_one_is_an_error(studies):
  _append(studies / "study_0", "{\n", "{}\n")
  with pytest.raises(ValueError, match=r"results\.jsonl, line 5: "):
    reading.find(studies)


@pytest.mark.parametrize(
  ("record", "reason"),
  [
    (
      {"schema": "x/9", "metrics": {}},
      "its schema is 'x/9', not 'bitnet_jax.study/1'",
    ),
    ({"metrics": {"a": "b"}}, "metrics.a is 'b', which is no number"),
    ({"case": "a"}, "it has no metrics"),
    ({"metrics": {}, "cell": [1]}, "cell is no object"),
    ({"metrics": {}, "config": {"model": "cnn"}}, "config.model is no object"),
  ],
)
def test_other_record_is_left_out_with_a_note(studies, record, reason):
  _append(studies / "study_0", json.dumps(record) + "\n")
  found = reading.find(studies)
  assert len(found.studies[0].runs) == 4
  (note,) = found.notes
  assert note == f"study_0/results.jsonl, line 5 is left out: {reason}"


def test_older_records_are_shown_but_on_no_leaderboard(tmp_path):
  folder = tmp_path / "old"
  folder.mkdir()
  record = synthetic.record("old", {}, 3)
  older = {k: record[k] for k in ("run_id", "config", "metrics", "num_params")}
  lines = [
    older | {"set": "cora"},
    older,
    {"case": "chance", "metrics": {"a": 1}},
  ]
  (folder / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
  (study,) = reading.find(tmp_path).studies
  assert study.kind == "older"
  names = ["set=cora,recipe=b158,seed=3", "recipe=b158,seed=3", "chance"]
  assert [run.name for run in study.runs] == names
  assert study.runs[0].cell == {"set": "cora"}
  assert not leaderboard.boards([study])


def test_runs_of_one_name_stay_apart(studies):
  line = (studies / "study_0" / "results.jsonl").read_text().splitlines()[0]
  _append(studies / "study_0", line + "\n")
  (study,) = reading.find(studies).studies
  assert study.runs[4].name == f"{study.runs[0].name}#2"


def test_study_with_a_plan_alone_is_shown(tmp_path):
  folder = tmp_path / "new"
  folder.mkdir()
  (folder / "README.md").write_text(
    "# Why?\n\n- Claims: 7, 8\n\n<!-- end of plan -->\n"
  )
  (tmp_path / "other").mkdir()
  (study,) = reading.find(tmp_path).studies
  assert (study.title, study.claims, study.kind) == ("Why?", [7, 8], "study")
  report.build(tmp_path, tmp_path / "site")
  text = (tmp_path / "site" / "index.html").read_text()
  link = '(<a href="study-new.html">new</a>)'
  assert f"no verdict yet: 7 {link}, 8 {link}." in text


def test_findings_on_records_of_other_studies_link_to_all_records(studies):
  (studies / "study_0" / "results.jsonl").unlink()
  (study,) = reading.find(studies).studies
  assert not study.runs
  linker = links.Linker(study)
  assert linker.to(("precision", "b158")) == links.RECORDS_PAGE
  rows = linker.row([{"name": "a"}], ["b158"])
  assert rows == [links.RECORDS_PAGE]
  report.build(studies, studies.parent / "site")


def test_folder_without_studies_is_an_error(tmp_path):
  (tmp_path / "a").mkdir()
  with pytest.raises(ValueError, match="holds no study: none of its folders"):
    reading.find(tmp_path)
  with pytest.raises(FileNotFoundError, match="name one that holds studies"):
    reading.find(tmp_path / "none")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      {"verdicts": [{"claim": 1}]},
      r"key verdicts\.0\.statement: it is missing",
    ),
    ({"tables": {}}, "key tables: {} is not of type 'array'"),
    ({"figures": [3]}, r"key figures\.0: 3 is not of type 'object'"),
    (
      {"tables": [{"name": "a", "columns": [], "rows": [[1]]}]},
      r"key tables\.0\.rows\.0: it has 1 values for 0 columns",
    ),
  ],
)
def test_damaged_findings_are_named(studies, change, message):
  path = studies / "study_0" / "findings.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(ValueError, match=message):
    reading.find(studies)
  path.write_text("{")
  with pytest.raises(ValueError, match="is damaged"):
    reading.find(studies)


def test_records_of_others_are_a_study_of_their_own(studies, tmp_path):
  path = tmp_path / "my records.jsonl"
  record = synthetic.record("xor", {"precision": "b158"}, 0)
  path.write_text(json.dumps(record) + "\n")
  found = reading.find(studies, [path, path])
  assert [s.slug for s in found.studies] == [
    "study_0",
    "records-my-records",
    "records-my-records-2",
  ]
  (board,) = leaderboard.boards(found.studies)
  assert {p.study.kind for p in board.places} == {"study", "records"}
  path.write_text(json.dumps(record | {"seed": None}) + "\n")
  with pytest.raises(report.RecordError, match=r"line 1, key seed: None"):
    report.build(studies, tmp_path / "site", [path])
  assert not (tmp_path / "site").exists()


def test_values_that_are_not_finite_are_left_out(studies, tmp_path):
  record = synthetic.record("s", {"precision": "b158"}, 9)
  record["metrics"]["valid/loss"] = float("nan")
  _append(studies / "study_0", json.dumps(record) + "\n")
  (study,) = report.build(studies, tmp_path / "site").studies
  assert study.runs[-1].record["metrics"]["valid/loss"] is None


def test_leaderboard_ranks_means_of_cells_without_divergence(tmp_path):
  lines = []
  for value, cell in ((0.7, "a"), (0.9, "b"), (0.8, "c"), (0.99, "d")):
    for seed in range(2):
      metrics = {"valid/accuracy": value + seed / 100, "test/accuracy": value}
      more = {"metrics": metrics}
      if cell == "d" and seed:
        more = {"metrics": {}, "diverged": 4}
      record = synthetic.record("s", {"rate": cell}, seed, **more)
      lines.append(json.dumps(record))
  (tmp_path / "s").mkdir()
  (tmp_path / "s" / "results.jsonl").write_text("\n".join(lines))
  found = reading.find(tmp_path)
  (board,) = leaderboard.boards(found.studies)
  assert (board.family, board.data, board.metric) == (
    "mlp",
    "embedded:digits",
    "test/accuracy",
  )
  assert [(p.rank, p.cell) for p in board.places] == [
    (1, "rate b"),
    (2, "rate c"),
    (3, "rate a"),
  ]
  assert board.hidden == 1
  assert board.places[0].value.mean == pytest.approx(0.9)
  assert board.places[0].link == "records.html#study=s&cell.rate=b"


def test_leaderboard_lists_ten_places_and_the_best_of_each_recipe(tmp_path):
  cells = [({"precision": "b158", "rate": i}, 0.9 - i / 100) for i in range(12)]
  cells += [({"precision": "float32", "rate": i}, 0.5) for i in range(2)]
  lines = [
    json.dumps(synthetic.record("s", c, 0, metrics={"valid/accuracy": v}))
    for c, v in cells
  ]
  (tmp_path / "s").mkdir()
  (tmp_path / "s" / "results.jsonl").write_text("\n".join(lines))
  (board,) = leaderboard.boards(reading.find(tmp_path).studies)
  assert [p.rank for p in board.places] == [*range(1, 11), 13]
  assert board.hidden == 3


def test_link_keeps_what_records_have(studies):
  (study,) = reading.find(studies).studies
  linker = links.Linker(study)
  assert linker.named("precision=b158,rate=0.0001") == [
    ("precision", "b158"),
    ("rate", "0.0001"),
  ]
  assert linker.named("b158") == [("precision", "b158")]
  assert linker.named("nothing, rate=77") == []
  assert linker.axis("Learning rate", [0.0001]) == "rate"
  assert linker.axis("Rate", [0.5]) is None
  everything = "records.html#study=study_0"
  assert linker.to(("rate", "77")) == everything
  columns = [{"name": "x"}, {"name": "b158_median/accuracy"}, {"name": "mean"}]
  assert linker.row(columns, [0.0001, 1.0, 2.0]) == [
    everything,
    f"{everything}&cell.precision=b158_median",
    everything,
  ]


@pytest.mark.parametrize(
  ("value", "text"),
  [
    ("a", "a"),
    (1.0, "1"),
    (0.01, "0.01"),
    (True, "true"),
    (None, "null"),
    ([1, 2], "[1,2]"),
    (1e-05, "1e-05"),
    (8, "8"),
  ],
)
def test_values_of_cells_as_text(value, text):
  assert runs.as_text(value) == text
