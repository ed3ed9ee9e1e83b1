"""Summaries at the start and at the end of a run, quiet and JSON modes."""

import json

import pytest

from bitnet_jax.quantizers.recipe import RECIPES
from bitnet_jax.train import console, runner, summary
from bitnet_jax.train.build import build
from tests.train.conftest import CONFIGS

OVERRIDES = {
  "total_steps": 30,
  "total_epochs": None,
  "eval_every": 10,
  "checkpoint_every": 20,
  "model.width": 16,
  "model.depth": 2,
  "mesh.data": 1,
}


def make_config(**overrides):
  path = f"{CONFIGS / 'digits_mlp.py'}"
  return runner.load_config(path, OVERRIDES | overrides)


def words_of(text, first):
  """Returns the words of the first line that starts with a word."""
  found = (line.split() for line in text.splitlines())
  return next(words for words in found if words[:1] == [first])


def test_start_tells_what_will_be_run():
  experiment = build(make_config())
  text = summary.of_start(experiment, "runs/a folder", step=10)
  assert text.startswith(
    f"run          runs/a folder (id {experiment.run_id}, seed 0)\n"
  )
  for part in (
    "embedded:digits: 1,294 train",
    "10 classes",
    "inputs uint8[8, 8, 1]",
    "30 steps, from step 10 on, of",
    "every 10 steps; best by valid/accuracy (max)",
    "every 20 steps",
    "data=1, fsdp=1, tensor=1",
  ):
    assert part in text
  layers = experiment.layers
  assert [layer.recipe for layer in layers[:2]] == [RECIPES["b158"]] * 2
  count = sum(
    layer.kernel(experiment.abstract_state().params).size for layer in layers
  )
  others = int(words_of(text, "others")[2].replace(",", ""))
  assert f"mlp: {count + others:,} parameters" in text


def test_layers_that_differ_in_a_number_share_a_row():
  config = make_config(**{"model.depth": 4})
  text = summary.of_start(build(config), "runs/a")
  row = next(line for line in text.splitlines() if "layers)" in line)
  assert "16 x 16" in row
  assert "(3 layers)" in row
  assert row.split()[-2:] == [str(3 * 16 * 16), "1.58"]


@pytest.mark.parametrize(
  ("name", "expected"),
  [("b158", 1.585), ("binary", 1.0), ("float", 32.0), ("int8", 8.0)],
)
def test_bits_of_a_recipe(name, expected):
  assert summary.bits(RECIPES[name]) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
  ("count", "text"), [(0, "0 B"), (999, "999 B"), (1_500_000, "1.5 MB")]
)
def test_sizes_have_units(count, text):
  assert summary.size(count) == text


def test_a_run_shows_text_or_events_or_nothing(tmp_path, capsys):
  shown = {}
  for mode in console.MODES:
    with console.showing(mode):
      result = runner.run(make_config(), tmp_path / mode)
    shown[mode] = capsys.readouterr()
  assert "of which" in shown["text"].err
  assert "train: " in shown["text"].err
  assert shown["text"].out == ""
  assert (shown["quiet"].out, shown["quiet"].err) == ("", "")
  assert shown["json"].err == ""
  events = [json.loads(line) for line in shown["json"].out.splitlines()]
  assert {event["event"] for event in events} == {"metrics"}
  evaluated = [e["step"] for e in events if "valid/accuracy" in e]
  assert evaluated == [10, 20, 30]
  end = summary.of_end(result, "runs/a folder")
  accuracy = f"{result['metrics']['test/accuracy']:.4f}"
  assert words_of(end, "test/accuracy")[1] == accuracy
  assert "'--workdir=runs/a folder'" in end


def test_commands_are_in_the_form_that_was_typed(monkeypatch):
  for name, expected in (
    ("bitnet-jax train", "bitnet-jax predict --json"),
    ("experiments/train.py", "python experiments/predict.py --json"),
    ("/usr/bin/pytest", "bitnet-jax predict --json"),
  ):
    monkeypatch.setattr("sys.argv", [name])
    assert console.command("predict", "--json") == expected


def test_unknown_mode_names_the_choices():
  with (
    pytest.raises(ValueError, match=r"'loud'.*'text', 'json', 'quiet'"),
    console.showing("loud"),
  ):
    pass
