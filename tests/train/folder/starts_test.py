"""Records of how a run was started."""

import datetime
import json
import platform

import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.folder import starts
from bitnet_jax.train.folder.starts import Origin


@pytest.mark.slow
def test_starts_and_the_result_say_how_the_run_was_made(make_config, tmp_path):
  folder = tmp_path / "run"
  origin = Origin(
    command="bitnet-jax train",
    config_file="digits_mlp",
    variant="S",
    overrides={"quant.rules": (("head", "float"),)},
  )
  config = make_config(total_steps=2, eval_every=0, checkpoint__keep_best=0)
  result = runner.run(config, folder, origin=origin)
  (start,) = starts.read(folder)
  for found in (start, result):
    assert found["host"] == platform.node()
    assert found["command"] == "bitnet-jax train"
    assert (found["config_file"], found["variant"]) == ("digits_mlp", "S")
    assert found["overrides"] == {"quant.rules": [["head", "float"]]}
    date = datetime.datetime.fromisoformat(found["date"])
    age = datetime.datetime.now(datetime.UTC) - date
    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)
  assert result["examples"]["train"] > result["examples"]["valid"] > 0
  expected = 2 * 32 / result["examples"]["train"]
  assert abs(result["epochs"] - expected) < 0.001
  # A run that is finished is not started again; one that resumes is.
  runner.run(config, folder, origin=origin)
  assert len(starts.read(folder)) == 1
  runner.run({**config, "total_steps": 3}, folder)
  (_, second) = starts.read(folder)
  assert (second["step"], second["command"]) == (2, None)


def test_starts_that_cannot_be_read_are_none(tmp_path):
  assert starts.read(tmp_path) == []
  (tmp_path / "starts.jsonl").write_text(json.dumps({"step": 0})[:-3])
  assert starts.read(tmp_path) == []
