"""The list of runs: their states, newest first."""

import fcntl
import json
import os

import pytest

from bitnet_jax.programs import run_list
from bitnet_jax.train.folder import starts
from bitnet_jax.train.folder.starts import Origin
from tests.programs.comparing.conftest import write_run as write_run


def test_runs_are_listed_newest_first(write_run, tmp_path):
  done = write_run(tmp_path / "done", 0.9, seed=3)
  origin = Origin(config_file="configs/digits_mlp.py")
  starts.append(done, origin, 0)
  write_run(tmp_path / "sweep" / "a=1,b=ü", None)
  busy = write_run(tmp_path / "sweep" / "busy", None)
  bad = write_run(tmp_path / "bad", 0.9)
  (bad / "config.json").write_text("{")
  worse = write_run(tmp_path / "worse", None)
  (worse / "metrics.jsonl").write_text('{"step": "a"}\n')
  (tmp_path / "model").mkdir()
  (tmp_path / "model" / "model.json").write_text("{}")
  (tmp_path / "model" / "config.json").write_text("{}")
  (tmp_path / "notes.txt").touch()
  for path in tmp_path.rglob("*.json*"):
    os.utime(path, (1e9, 1e9))
  os.utime(busy / "metrics.jsonl", (1e9 + 60, 1e9 + 60))
  with (busy / ".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    found = run_list.list_runs(f"{tmp_path}")
  assert [run["name"] for run in found] == [
    "sweep/busy",
    "bad",
    "done",
    "sweep/a=1,b=ü",
    "worse",
  ]
  states = [run["state"] for run in found]
  assert states == ["running", "damaged", "finished", "stopped", "damaged"]
  of_done = found[2]
  size = of_done.pop("bytes")
  assert size == sum(path.stat().st_size for path in done.iterdir())
  assert of_done == {
    "name": "done",
    "state": "finished",
    "config": "configs/digits_mlp.py",
    "task": "classification",
    "model": "mlp",
    "recipe": "b158",
    "seed": 3,
    "step": 12,
    "total_steps": 12,
    "metric": "valid/accuracy",
    "best": pytest.approx(0.895),
    "date": "2001-09-09T01:46:40+00:00",
    "damage": "",
  }
  assert found[0]["best"] == 0.5  # So far.
  assert "metrics.jsonl, line 1" in found[4]["damage"]
  json.dumps(found)
  lines = run_list.table([of_done | {"bytes": size}]).splitlines()
  assert len(lines) == 2
  for part in ("digits_mlp.py", "12/12", "valid/accuracy 0.895", "2001-09-09"):
    assert part in lines[1]


def test_run_folder_lists_itself_and_no_folder_is_named(write_run, tmp_path):
  folder = write_run(tmp_path / "a", 0.9)
  assert [run["name"] for run in run_list.list_runs(folder)] == ["a"]
  with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
    run_list.list_runs(tmp_path / "nowhere")
