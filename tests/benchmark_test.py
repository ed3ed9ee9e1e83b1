"""The program that compares times, and what it reads off."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def benchmark(*arguments):
  done = subprocess.run(
    [sys.executable, str(ROOT / "experiments" / "benchmark.py"), *arguments],
    env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow
def test_times_are_printed_recorded_and_drawn(tmp_path):
  records, picture = tmp_path / "records.jsonl", tmp_path / "ratios.png"
  printed = benchmark(
    "--suite=median",
    "--case=100,000",
    "--repeats=3",
    f"--output={records}",
    f"--plot={picture}",
  )
  assert "absmedian / absmean" in printed
  (line,) = records.read_text().splitlines()
  record = json.loads(line)
  assert record["suite"] == "median"
  assert record["repeats"] == 3
  assert record["versions"]["jax"]
  assert set(record["milliseconds"]) == {"absmean", "absmedian", "jnp.median"}
  for quartiles in (
    *record["milliseconds"].values(),
    *record["ratios"].values(),
  ):
    assert 0 < quartiles["q1"] <= quartiles["median"] <= quartiles["q3"]
  # Counting beats sorting by two orders of magnitude.
  assert record["ratios"]["absmedian / jnp.median"]["median"] < 0.1
  assert picture.read_bytes().startswith(b"\x89PNG")


def test_runs_stand_side_by_side_in_a_table(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(ROOT / "experiments")
  from benchmarks.tables import table

  def write(name, median, ratios=("new / old",)):
    quartiles = dict(q1=median / 2, median=median, q3=2 * median)
    record = {
      "suite": "dense",
      "case": "small",
      "milliseconds": {"new": {"median": 1234.5}, "old": {"median": 12.34}},
      "ratios": dict.fromkeys(ratios, quartiles),
    }
    path = tmp_path / name
    path.write_text(json.dumps(record) + "\n")
    return path

  first, second = write("first", 0.5), write("second", 0.04)
  assert table("dense", [first, second]).splitlines()[2] == (
    "| small | new / old | 1,234 / 12.3 | 0.50 (0.25 to 1.00)"
    " | 0.04 (0.02 to 0.08) |"
  )
  with pytest.raises(ValueError, match=r"no times of the suite .conv.*first"):
    table("conv", [first])
  with pytest.raises(ValueError, match=r"third does not exist"):
    table("dense", [first, tmp_path / "third"])
  with pytest.raises(ValueError, match=r"second lacks \['new / old'\]"):
    table("dense", [first, write("second", 1.0, ("old / new",))])


@pytest.mark.parametrize(
  "suite, names",
  [
    *((s, ("first", "second")) for s in ("dense", "conv", "median", "step")),
    ("step", ("intel",)),
  ],
)
def test_tables_of_the_page_are_those_of_the_records(suite, names, monkeypatch):
  monkeypatch.syspath_prepend(ROOT / "experiments")
  from benchmarks.tables import table

  records = ROOT / "docs" / "performance"
  files = [records / f"{name}.jsonl" for name in names]
  page = records.with_suffix(".md").read_text(encoding="utf-8")
  assert f"\n{table(suite, files)}\n\n" in page


@pytest.mark.slow
def test_layers_keep_less_than_simulated_quantization(tmp_path):
  records = tmp_path / "records.jsonl"
  benchmark("--suite=memory", f"--output={records}")
  ratios = {}
  for line in records.read_text().splitlines():
    record = json.loads(line)
    found = record["read"]
    ratios[record["case"]] = found.get("ratio", found.get("ratio, kept"))
  assert ratios["bit_dot 2048 x 1024 x 4096"] <= 0.26
  assert ratios["4 layers, 2048 tokens, width 1024"] <= 0.55
  assert ratios["4 layers, 256 tokens, width 2048"] <= 0.4
