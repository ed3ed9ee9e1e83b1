"""Tables of compared runs, from folders alone, word for word."""

import csv
import io
import json
import os
import pathlib

import pytest

from bitnet_jax.programs import comparing

GOLDEN = pathlib.Path(__file__).parents[2] / "testdata" / "comparing"
# Accuracies by recipe, of seeds 0, 1, ...
ACCURACIES = {
  "float": (0.97, 0.975, 0.965),
  "b158": (0.96, 0.97, 0.968),
  "b158_median": (0.961, 0.962),
  "twn": (0.9,),
}


@pytest.fixture
def study(write_run, tmp_path):
  """A folder of runs of several recipes and seeds."""
  root = tmp_path / "ein Vergleich ü"
  for recipe, values in ACCURACIES.items():
    for seed, value in enumerate(values):
      folder = root / f"quant.recipe={recipe},seed={seed}"
      write_run(folder, value, quant__recipe=recipe, seed=seed)
  return root


def check_golden(name, text):
  path = GOLDEN / name
  if os.environ.get("UPDATE_GOLDEN"):
    path.write_text(text, encoding="utf-8")
  assert text == path.read_text(encoding="utf-8")


def test_tables_are_as_recorded(study):
  report = comparing.compare(
    [study],
    baseline="quant.recipe=float",
    metrics=["test/accuracy", "test/loss"],
  )
  assert not report.notes
  check_golden("table.md", report.markdown() + "\n")
  check_golden("table.csv", report.csv())


def test_table_of_best_checkpoints_says_so(study):
  report = comparing.compare([study], checkpoint="best")
  assert "Metrics are of the best checkpoint of each run." in report.markdown()
  (row,) = [r for r in rows(report) if r["quant.recipe"] == "twn"]
  assert row["metric"] == "test/accuracy"  # That of the config, of "test".
  assert float(row["mean"]) == 0.905
  assert row["low"] == row["high"] == ""


def rows(report):
  return list(csv.DictReader(io.StringIO(report.csv())))


def test_keys_that_differ_are_found(write_run, tmp_path):
  for i, (rate, rules) in enumerate(
    ((0.01, (("head", "float"),)), (0.01, ()), (0.02, ()))
  ):
    write_run(
      tmp_path / f"{i}",
      0.9 + i / 100,
      optim__learning_rate=rate,
      quant__rules=rules,
      log_every=i + 1,
      mesh__data=i + 1,
    )
  report = comparing.compare([tmp_path / "0", tmp_path / "1", tmp_path / "2"])
  (comparison,) = report.comparisons
  # Cadences and mesh change nothing that is learned.
  assert {*comparison.keys} == {"quant.rules", "optim.learning_rate"}
  names = [group.name for group in comparison.groups]
  assert names == [
    'optim.learning_rate=0.01, quant.rules=[["head", "float"]]',
    "optim.learning_rate=0.01, quant.rules=[]",
    "optim.learning_rate=0.02, quant.rules=[]",
  ]
  assert comparison.pick("optim.learning_rate=0.02").name == names[2]
  with pytest.raises(ValueError, match="names 2 groups"):
    comparison.pick("quant.rules=[]")


def test_seeds_of_one_config_are_one_row(write_run, tmp_path):
  for seed in range(3):
    write_run(tmp_path / f"{seed}", 0.9 + seed / 100, seed=seed)
  report = comparing.compare([tmp_path])
  text = report.markdown()
  assert "| size | runs | test/accuracy | 95 % interval |" in text
  # 0.01 / sqrt(3) times the quantile 4.302653 of two degrees of freedom.
  assert "| 3 | 91.00 % | 88.52 to 93.48 % |" in text


def test_runs_of_other_data_get_tables_of_their_own(write_run, tmp_path):
  write_run(tmp_path / "a", 0.9)
  write_run(tmp_path / "b", 0.8, data="embedded:digits of another version")
  write_run(tmp_path / "c", 0.7, data__test_fraction=0.5)
  report = comparing.compare([tmp_path])
  text = report.markdown()
  assert text.count("## classification of embedded:digits (") == 3
  assert "test_fraction=0.5" in text
  assert len(report.comparisons) == 3


def test_what_is_left_out_is_named(write_run, tmp_path):
  write_run(tmp_path / "a", 0.9)
  write_run(tmp_path / "b", 0.9)  # The same seed again.
  write_run(tmp_path / "c", None)
  write_run(tmp_path / "d", 0.9, seed=1)
  (tmp_path / "d" / "result.json").write_text("{")
  (tmp_path / "e").mkdir()
  (tmp_path / "f.txt").touch()
  report = comparing.compare(sorted(tmp_path.iterdir()))
  assert len(report.notes) == 5
  c, d, e, f, b = report.notes
  assert c == f"{tmp_path / 'c'} is stopped at step 0 of 12; left out"
  assert d.startswith(f"{tmp_path / 'd'} is damaged and left out: ")
  assert "result.json is damaged" in d
  assert e == f"{tmp_path / 'e'} holds no run; it is left out"
  assert f == f"{tmp_path / 'f.txt'} holds no run; it is left out"
  assert b == (f"{tmp_path / 'b'} repeats {tmp_path / 'a'} (seed 0); left out")
  assert [r["runs"] for r in rows(report)] == ["1"]


def test_no_finished_run_is_an_error(write_run, tmp_path):
  write_run(tmp_path / "a", None)
  with pytest.raises(
    ValueError, match=r"is stopped at step 0.* no finished run"
  ):
    comparing.compare([tmp_path])
  with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
    comparing.compare([tmp_path / "nowhere"])


def test_unknown_metric_and_baseline_are_told_with_the_choices(study):
  with pytest.raises(ValueError, match=r"test/f1.*not one of.*'test/loss'"):
    comparing.compare([study], metrics=["test/f1"])
  with pytest.raises(
    ValueError, match=r"quant.recipe=flot names 0 groups .did you mean"
  ):
    comparing.compare([study], baseline="quant.recipe=flot")


def test_best_checkpoint_that_is_not_there_is_named(write_run, tmp_path):
  folder = write_run(tmp_path / "a", 0.9)
  result = json.loads((folder / "result.json").read_text())
  text = json.dumps(result | {"best": None})
  (folder / "result.json").write_text(text)
  with pytest.raises(ValueError, match="a has no best checkpoint"):
    comparing.compare([folder], checkpoint="best")


def test_runs_without_a_common_seed_have_no_difference(write_run, tmp_path):
  write_run(tmp_path / "a", 0.9, seed=0)
  write_run(tmp_path / "b", 0.8, seed=1, quant__recipe="float")
  report = comparing.compare([tmp_path])
  assert "| no common seed |  |  |" in report.markdown()
  assert rows(report)[1]["difference"] == ""


def test_csv_is_written_into_a_new_folder(study, tmp_path):
  report = comparing.compare([study])
  path = tmp_path / "new" / "t.csv"
  comparing.write_csv(report, str(path))
  assert path.read_text() == report.csv()


def test_places_that_cannot_be_written_are_named(study, tmp_path):
  report = comparing.compare([study])
  with pytest.raises(IsADirectoryError, match=r"--csv=.* is a folder"):
    comparing.write_csv(report, tmp_path)
  (tmp_path / "file").touch()
  with pytest.raises(NotADirectoryError, match=r"--figures=.* is not a folder"):
    comparing.draw(report, tmp_path / "file")


def test_metric_by_default_is_one_that_all_runs_have(write_run, tmp_path):
  write_run(tmp_path / "a", 0.9)
  path = write_run(tmp_path / "b", 0.8, seed=1) / "result.json"
  result = json.loads(path.read_text())
  del result["metrics"]["test/accuracy"]
  path.write_text(json.dumps(result))
  assert rows(comparing.compare([tmp_path]))[0]["metric"] == "valid/accuracy"
  path.write_text(json.dumps(result | {"metrics": {"other": 1.0}}))
  with pytest.raises(ValueError, match="have no metric in common"):
    comparing.compare([tmp_path])
