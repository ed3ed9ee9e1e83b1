"""The folder of a run; what whole runs show of it is in ``runner_test``."""

import json

import pytest

from bitnet_jax.train.folder import workdir

CONFIG = {
  "total_steps": 10,
  "seed": 0,
  "task": {"name": "a"},
  "data": {"source": "a"},
  "mesh": 1,
}


def test_config_is_written_and_read_back(tmp_path):
  workdir.claim(tmp_path, CONFIG, "print")
  assert workdir.read_config(tmp_path) == (CONFIG, "print")


def test_claim_takes_what_is_free_and_a_longer_run(tmp_path):
  workdir.claim(tmp_path, CONFIG, "print")
  longer = CONFIG | {"total_steps": 20, "mesh": 2, "data": {"source": "b"}}
  workdir.claim(tmp_path, longer, "print")
  assert workdir.read_config(tmp_path) == (longer, "print")


@pytest.mark.parametrize(
  ("change", "fingerprint", "message"),
  [
    ({"seed": 1}, "print", "seed: 0 there, 1 now"),
    ({"total_steps": 9}, "print", "total_steps: 10 there, 9 now"),
    ({"total_steps": 20, "seed": 1}, "print", "seed: 0 there, 1 now"),
    ({}, "other", "data.fingerprint: 'print' there, 'other' now"),
  ],
)
def test_refused_claim_leaves_the_config(
  tmp_path, change, fingerprint, message
):
  workdir.claim(tmp_path, CONFIG, "print")
  with pytest.raises(workdir.WorkdirError, match=message):
    workdir.claim(tmp_path, CONFIG | change, fingerprint)
  assert workdir.read_config(tmp_path) == (CONFIG, "print")


@pytest.mark.parametrize(
  "name", ["metrics.jsonl", "checkpoints", "result.json"]
)
def test_remains_without_a_config_are_refused(tmp_path, name):
  (tmp_path / name).mkdir()
  with pytest.raises(workdir.WorkdirError, match=f"holds {name} but no config"):
    workdir.claim(tmp_path, CONFIG, "print")


def test_folder_with_other_files_is_taken(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  workdir.claim(tmp_path, CONFIG, "print")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"seed": 0}', "\x00"])
def test_damaged_config_is_named(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(workdir.WorkdirError, match=r"config.json is damaged"):
    workdir.read_config(tmp_path)


@pytest.mark.parametrize("lengths", [5, [3], [{}], [{"until": "x"}]])
def test_damaged_lengths_are_named(tmp_path, lengths):
  damaged = CONFIG | {"earlier_lengths": lengths}
  workdir.write_config(tmp_path, damaged, "print")
  with pytest.raises(workdir.WorkdirError, match=r"config.json is damaged"):
    workdir.claim(tmp_path, CONFIG, "print", step=3)


def test_lock_makes_the_folder_and_is_released(tmp_path):
  folder = tmp_path / "a" / "b"
  for _ in range(2):
    with workdir.Lock(folder):
      assert folder.is_dir()
      with pytest.raises(workdir.WorkdirError, match="in use"):
        workdir.Lock(folder)


def test_result_is_read_or_named_if_damaged(tmp_path):
  assert workdir.read_result(tmp_path) is None
  result = {"run_id": "a", "step": 1, "metrics": {}}
  workdir.write_json(tmp_path / "result.json", result)
  assert workdir.read_result(tmp_path) == result
  assert json.loads((tmp_path / "result.json").read_text()) == result
  (tmp_path / "result.json").write_text("{")
  with pytest.raises(workdir.WorkdirError, match=r"result.json is damaged"):
    workdir.read_result(tmp_path)
