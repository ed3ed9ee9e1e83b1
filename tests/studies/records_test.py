"""Records: compact configs, curves, damaged and older files."""

import concurrent.futures
import json
import pathlib

import numpy as np
import pytest

from bitnet_jax.studies import records
from bitnet_jax.train import runner
from tests.studies.conftest import make_record, write
from tests.train.conftest import CONFIGS, ROOT


@pytest.mark.parametrize("name", ["xor_mlp", "pydoc_decoder", "karate_gnn"])
def test_compact_config_expands_to_the_config(name):
  config = runner.load_config(f"{CONFIGS / name}.py", {"seed": 7})
  kept = records.compact(config)
  assert records.expand(kept) == json.loads(json.dumps(config))
  assert len(json.dumps(kept)) < 0.5 * len(json.dumps(config))
  assert {"name"} <= {*kept["task"]} & {*kept["model"]}
  assert "b1" not in kept["optim"]


def test_config_of_a_record_names_no_folder_of_this_machine():
  config = runner.load_config(
    f"{CONFIGS}/xor_mlp.py", {"data.source": "file:/home/a/b.npz"}
  )
  config["init_from"] = "/home/a/runs/x"
  found = records.unplaced(config)
  assert found["data"]["source"] == "file:b.npz"
  assert found["init_from"] == "x"


def test_curves_have_few_points_at_the_steps_of_evaluations():
  lines = [{"step": s, "time": 0.0, "train/loss": float(s)} for s in range(400)]
  for line in lines[::4]:
    line["valid/loss"] = 10.0 + line["step"]
  curves = records.curves_of(lines, records.CURVES)
  assert len(curves["step"]) == records.MOST_POINTS
  assert (curves["step"][0], curves["step"][-1]) == (0, 396)
  assert curves["valid/loss"] == [10.0 + s for s in curves["step"]]
  assert curves["train/loss"] == [float(s) for s in curves["step"]]


def test_curves_carry_the_last_value_up_to_a_step():
  lines = [
    {"step": 3, "train/loss": 1.0},
    {"step": 5, "valid/loss": 2.0},
    {"step": 9, "valid/loss": 3.0, "valid/other": 4.0},
  ]
  curves = records.curves_of(lines, ["train/loss", "valid/*"])
  assert curves == {
    "step": [5, 9],
    "train/loss": [1.0, 1.0],
    "valid/loss": [2.0, 3.0],
    "valid/other": [None, 4.0],
  }
  assert records.curves_of([], records.CURVES) == {}


def test_layers_are_the_last_statistics():
  parts = ("zero_fraction", "negative_fraction", "positive_fraction", "scale")
  lines = [
    {"step": step, **{f"weights/a/b/{part}": step + 0.5 for part in parts}}
    for step in (1, 2)
  ]
  assert records.layers_of(lines) == {
    "a/b": dict.fromkeys(("zeros", "negative", "positive", "scale"), 2.5)
  }


def test_fraction_of_zeros_is_that_of_all_weights():
  layers = {
    "a/b": {"zeros": 0.5, "negative": 0.25, "positive": 0.25, "scale": 1.0},
    "c": {"zeros": 0.2, "negative": 0.4, "positive": 0.4, "scale": 1.0},
  }
  kernels = {"kernel": np.ones((2, 3))}, {"kernel": np.ones((2, 12))}
  variables = {"params": {"a": {"b": kernels[0]}, "c": kernels[1]}}
  lines = [
    {"step": 1, "weights/a/b/zero_fraction": 1.0, "weights/c/zero_fraction": 0},
    {"step": 2, "train/loss": 1.0},
  ]
  config = runner.load_config("xor_mlp")
  found = records.describe(
    {"config": config, "versions": {}, "metrics": {"test/loss": 1.0}},
    lines,
    layers,
    variables,
    curves=["weights/zero_fraction"],
  )
  assert found["metrics"] == {"test/loss": 1.0, "weights/zero_fraction": 0.26}
  assert found["layers"]["a/b"] == {**layers["a/b"], "size": 6}
  assert found["curves"] == {"step": [1], "weights/zero_fraction": [0.2]}


def test_broken_last_line_loses_no_other_record(tmp_path):
  path = tmp_path / "results.jsonl"
  found = [make_record({"rate": 1.0}, seed) for seed in range(3)]
  write(path, found[:2])
  whole = path.read_bytes()
  for cut in (b'{"schema": "bit', b'{"schema": "bit\n', b"\xff\xfe"):
    path.write_bytes(whole + cut)
    assert records.load(path) == found[:2]
    records.append(path, found[2])
    assert records.load(path) == found
    assert path.read_bytes().startswith(whole)


def test_last_line_without_an_end_is_completed(tmp_path):
  path = tmp_path / "results.jsonl"
  found = [make_record({"rate": 1.0}, seed) for seed in range(2)]
  path.write_text(json.dumps(found[0]), encoding="utf-8")
  assert records.load(path) == found[:1]
  records.append(path, found[1])
  assert records.load(path) == found


@pytest.mark.parametrize(
  ("line", "said"),
  [
    ("[1]", "line 1: it is no object"),
    ("{", "line 1: "),
    ('{"schema": "bitnet_jax.study/9"}', r"line 1: schema is 'bitnet_jax\.st"),
    ('{"schema": "other"}', r"not one of: 'bitnet_jax\.study/1'"),
  ],
)
def test_another_line_or_schema_is_an_error_that_names_it(tmp_path, line, said):
  path = tmp_path / "results.jsonl"
  write(path, [make_record({}, 0)])
  path.write_text(f"{line}\n" + path.read_text(), encoding="utf-8")
  with pytest.raises(ValueError, match=said) as caught:
    records.load(path)
  assert "results.jsonl" in f"{caught.value}"


def test_another_schema_in_the_last_line_is_an_error_too(tmp_path):
  path = tmp_path / "results.jsonl"
  write(path, [make_record({}, 0), {"schema": "bitnet_jax.study/2"}])
  with pytest.raises(ValueError, match="line 2: schema"):
    records.load(path)


@pytest.mark.parametrize("name", ["families", "backward"])
def test_records_of_an_older_form_are_read(name):
  path = pathlib.Path(ROOT) / "experiments" / name / "results.jsonl"
  found = records.load(path)
  assert len(found) == len(path.read_text(encoding="utf-8").splitlines())
  assert all(record["schema"] == records.SCHEMA for record in found)
  assert found[0]["cell"] == {}
  assert found[0]["diverged"] is None
  assert isinstance(found[0]["seed"], int)


def _append_some(path, first):
  for seed in range(first, first + 20):
    records.append(path, {"schema": records.SCHEMA, "seed": seed})


def test_appends_at_a_time_lose_nothing(tmp_path):
  path = tmp_path / "results.jsonl"
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda i: _append_some(path, 20 * i), range(4)))
  seeds = sorted(record["seed"] for record in records.load(path))
  assert seeds == list(range(80))
