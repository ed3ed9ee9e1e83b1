"""Open keys are decided once, from the data, and stay as they are."""

import json

import numpy as np
import pytest

from bitnet_jax.config import open_keys
from bitnet_jax.train.build import build
from bitnet_jax.train.decisions import decisions
from bitnet_jax.train.folder import records, workdir
from tests.train.decisions.conftest import load, sentences

LABELS = [*np.arange(120) % 3]


def text_rows(count, classes=2):
  rows = [(text, f"c{i % classes}") for i, text in enumerate(sentences(count))]
  return [("text", "label"), *rows]


def test_decided_config_has_a_value_for_each_key_and_says_why(ask, pictures):
  config = ask("images", pictures(LABELS)).config
  assert config["budget"] is config["evaluations"] is None
  assert config["optim"]["warmup_fraction"] is None
  assert config["data"]["num_classes"] == 3
  assert config["total_steps"] == 270  # 40 passes of 108 / 16 batches
  assert config["optim"]["warmup_steps"] == 14
  assert config["eval_every"] == config["checkpoint_every"] == 27
  said = [*decisions.lines(config)]
  assert "optim.warmup_steps = 14 (5 % of 270 steps)" in said
  assert "eval_every = 27 (10 in 270 steps)" in said
  json.dumps(config)


def test_decisions_are_no_part_of_the_identity(ask, pictures):
  decided = ask("images", pictures(LABELS))
  given = {k: v for k, v in decided.config.items() if k != "decided"}
  assert decided.run_id == records.run_id(given, decided.fingerprint)
  assert "budget" not in records.identity(given, "")
  assert "warmup_fraction" not in records.identity(given, "")["optim"]


def test_given_values_win(ask, pictures):
  given = {
    "total_steps": 50,
    "eval_every": 7,
    "log_every": 3,
    "data.batch_size": 5,
    "data.valid_fraction": 0.25,
    "optim.warmup_steps": 4,
    "steps_per_dispatch": 2,
  }
  names = {k.replace(".", "__"): v for k, v in given.items()}
  experiment = ask("images", pictures(LABELS), **names)
  for key, value in given.items():
    assert decisions._get(experiment.config, key) == value
    assert key not in experiment.config["decided"]
  assert experiment.data.facts.splits["valid"].examples == 30
  # What follows from a given length follows.
  assert experiment.config["checkpoint_every"] == 7
  assert ask("images", pictures(LABELS), total_epochs=2).total_steps == 14


def test_run_of_one_step_has_a_warm_up_that_is_shorter(ask, pictures):
  config = ask("images", pictures(LABELS), total_steps=1).config
  assert config["optim"]["warmup_steps"] == 0
  assert config["eval_every"] == config["log_every"] == 1


def test_same_command_decides_the_same_in_the_folder_of_its_run(
  ask, pictures, tmp_path
):
  source, folder = pictures(LABELS), tmp_path / "run"
  first = ask("images", source, mesh__data=6)
  folder.mkdir()
  workdir.write_config(folder, first.config, first.fingerprint)
  again = ask("images", source, folder)
  assert again.config == {**first.config, "mesh": again.config["mesh"]}
  # On one device, another batch size would be decided.
  assert first.config["data"]["batch_size"] == 12
  assert ask("images", source).config["data"]["batch_size"] == 16
  workdir.claim(folder, again.config, again.fingerprint)


def test_extended_run_keeps_its_decisions(ask, pictures, tmp_path):
  source, folder = pictures(LABELS), tmp_path / "run"
  first = ask("images", source)
  folder.mkdir()
  workdir.write_config(folder, first.config, first.fingerprint)
  longer = ask("images", source, folder, total_steps=500)
  assert longer.total_steps == 500
  assert longer.config["optim"] == first.config["optim"]
  config = workdir.claim(folder, longer.config, longer.fingerprint, step=200)
  assert config["earlier_lengths"] == [{"total_steps": 270, "until": 200}]
  # Without the flag it stays as long.
  assert ask("images", source, folder).total_steps == 500


def test_run_of_other_data_is_refused(ask, pictures, tmp_path):
  folder = tmp_path / "run"
  first = ask("images", pictures(LABELS))
  folder.mkdir()
  workdir.write_config(folder, first.config, first.fingerprint)
  other = ask("images", pictures(LABELS[::-1], name="b.npz"), folder)
  with pytest.raises(workdir.WorkdirError, match=r"another run.*fingerprint"):
    workdir.claim(folder, other.config, other.fingerprint)
  fewer = pictures([*np.arange(120) % 4], name="c.npz")
  with pytest.raises(ValueError, match=r"label 3.*the data changed"):
    ask("images", fewer, folder)


def test_recipe_and_seed_change_no_decision(ask, table):
  source = table(text_rows(60))
  first = ask("texts", source)
  other = ask("texts", source, quant__recipe="float", seed=3)
  assert other.config["decided"] == first.config["decided"]
  for key in open_keys(first.config):
    value = decisions._get(first.config, key)
    assert value is not None or key == "data.vocab_size", key


def test_key_that_needs_a_budget_is_refused_without():
  with pytest.raises(ValueError, match=r"evaluations is 9.*set eval_every"):
    build(load("digits_mlp", evaluations=9))
  with pytest.raises(ValueError, match=r"warmup_fraction.*optim.warmup_steps"):
    build(load("digits_mlp", optim__warmup_fraction=0.1))


def test_unknown_budget_is_refused(ask, pictures):
  with pytest.raises(ValueError, match=r"budget is 'XL'.*'S', 'M', 'L'"):
    ask("images", pictures(LABELS), budget="XL")
