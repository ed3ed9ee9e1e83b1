"""Whole runs: what they leave, how they resume, stop and refuse."""

import json
import pathlib
import signal

import jax
import numpy as np
import pytest

from bitnet_jax.train import hooks, loop, runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder import starts, trained, warm_start
from bitnet_jax.train.folder.metrics import NonFiniteMetricError
from bitnet_jax.train.folder.workdir import Lock, WorkdirError
from tests.train.conftest import final_state, lines_without_time


def stop_after(monkeypatch, step, number=signal.SIGTERM):
  """Has the first run receive a signal once it has made ``step`` updates."""
  real = hooks.Profile.__call__

  def call(self, at, state, metrics):
    real(self, at, state, metrics)
    if at >= step:
      monkeypatch.setattr(hooks.Profile, "__call__", real)
      signal.raise_signal(number)

  monkeypatch.setattr(hooks.Profile, "__call__", call)


def test_result_holds_what_identifies_and_what_came_out(run):
  result, folder = run()
  assert result == json.loads((folder / "result.json").read_text())
  assert set(result) == {
    "run_id",
    "step",
    "config",
    "versions",
    "commit",
    "device",
    "num_params",
    "wall_time_s",
    "metrics",
    "best",
    "examples",
    "epochs",
    "date",
    "host",
    "command",
    "config_file",
    "variant",
    "overrides",
  }
  (start,) = starts.read(folder)
  assert start["host"] == result["host"]
  assert result["epochs"] == round(12 * 32 / result["examples"]["train"], 3)
  assert result["step"] == 12
  assert result["num_params"] == 64 * 16 + 16 + 16 * 10 + 10
  assert result["metrics"]["test/accuracy"] > 0.2  # Chance is 0.1.
  assert result["versions"]["jax"] == jax.__version__
  config = json.loads((folder / "config.json").read_text())
  assert config["total_steps"] == 12
  assert (folder / "checkpoints" / "000012").is_dir()
  assert list((folder / "tensorboard").iterdir())


@pytest.mark.slow
def test_folder_may_be_relative_or_a_string(make_config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  folder = pathlib.Path("runs/digits")
  result = runner.run(make_config(), str(folder))
  assert runner.evaluate_run(folder)["step"] == result["step"]
  assert (tmp_path / "runs" / "digits" / "checkpoints" / "000012").is_dir()


# In the default run, the crossed suite resumes.
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_resumed_run_equals_uninterrupted_run(
  run, make_config, monkeypatch, tmp_path, number
):
  options = {
    "optim__accumulate_steps": 2,
    "data__random_crop": 1,
    "quant__weights__rounding": "stochastic",
  }
  expected, once = run("once", **options)
  stop_after(monkeypatch, 6, number)
  with pytest.raises(runner.Interrupted, match=rf"{number.name} at step 6"):
    run("twice", **options)
  assert (tmp_path / "twice" / "checkpoints" / "000006").is_dir()
  assert not (tmp_path / "twice" / "result.json").exists()
  actual, twice = run("twice", **options)
  assert actual["metrics"] == expected["metrics"]
  assert lines_without_time(twice) == lines_without_time(once)
  config = make_config(**options)
  jax.tree.map(
    np.testing.assert_array_equal,
    final_state(config, twice),
    final_state(config, once),
  )


@pytest.mark.slow
def test_lines_beyond_the_restored_step_are_dropped(run, monkeypatch, tmp_path):
  _, once = run("once")
  stop_after(monkeypatch, 6)
  with pytest.raises(runner.Interrupted):
    run("twice")
  path = tmp_path / "twice" / "metrics.jsonl"
  stale = '{"step": 7, "time": 1.0, "train/loss": 99.0}\n{"step": 8, "ti'
  path.write_text(path.read_text() + stale)
  _, twice = run("twice")
  assert lines_without_time(twice) == lines_without_time(once)


@pytest.mark.slow
def test_damaged_checkpoint_falls_back_and_ends_the_same(
  run, make_config, caplog
):
  _, once = run("once")
  _, folder = run("twice")
  (folder / "result.json").unlink()
  victim = next((folder / "checkpoints" / "000012").rglob("d/*"))
  flipped = bytearray(victim.read_bytes())
  flipped[len(flipped) // 2] ^= 1
  victim.write_bytes(flipped)
  run("twice")
  assert f"{victim} has changed" in caplog.text
  assert (folder / "checkpoints" / "damaged-000012-0").is_dir()
  assert lines_without_time(folder) == lines_without_time(once)
  jax.tree.map(
    np.testing.assert_array_equal,
    final_state(make_config(), folder),
    final_state(make_config(), once),
  )


def test_finished_run_is_left_as_it_is(run, capsys):
  first, folder = run()
  before = (folder / "result.json").read_bytes()
  again, _ = run()
  assert again == first
  assert (folder / "result.json").read_bytes() == before
  assert "finished" in capsys.readouterr().err


@pytest.mark.slow
def test_longer_run_goes_on(run):
  run(optim__schedule="constant")
  result, folder = run(optim__schedule="constant", total_steps=16)
  assert result["step"] == 16
  assert [line["step"] for line in lines_without_time(folder)] == [
    *range(1, 17)
  ]


@pytest.mark.slow
def test_longer_run_is_told_from_one_of_that_length(run, make_config, caplog):
  options = {"statistics_every": 0, "optim__final_fraction": 0.01}
  first, folder = run(total_steps=4, eval_every=1, **options)
  assert not caplog.messages
  longer = {"total_steps": 8, "eval_every": 1, **options}
  result, _ = run(**longer)
  assert "from 0.0001 to 0.00395" in caplog.text
  fresh = build(make_config(**longer))
  assert result["config"] == fresh.config | {
    "earlier_lengths": [{"total_steps": 4, "until": 4}]
  }
  assert len({first["run_id"], result["run_id"], fresh.run_id}) == 3
  again, _ = run(**longer)
  assert again == result  # Finished.
  assert runner.evaluate_run(folder)["run_id"] == result["run_id"]
  assert warm_start.find(folder).run_id == result["run_id"]
  assert build(result["config"]).run_id == result["run_id"]


@pytest.mark.slow
def test_epochs_are_rounded_up_to_steps(run):
  result, _ = run(total_steps=None, total_epochs=1)
  assert result["step"] == 41  # 1,294 training examples in batches of 32.


def test_workdir_of_another_config_is_refused(run):
  run()
  for change, message in (
    ({"optim__learning_rate": 0.5}, r"optim.learning_rate: 0.01 there, 0.5"),
    ({"quant__recipe": "float"}, r"quant.recipe: 'b158' there, 'float' now"),
    ({"seed": 3}, "seed: 0 there, 3 now"),
    ({"total_steps": 8}, "total_steps: 12 there, 8 now"),
    ({"data__source": "embedded:xor", "data__num_classes": 2}, "fingerprint"),
  ):
    with pytest.raises(WorkdirError, match=message):
      run(**change)


@pytest.mark.slow
def test_what_does_not_identify_a_run_may_change(run):
  first, _ = run()
  for change in (
    {"log_every": 5},
    {"eval_every": 3},
    {"mesh__data": 2},
    {"profile__steps": 2},
  ):
    again, _ = run(**change)
    assert again["run_id"] == first["run_id"], change


def test_data_are_identified_by_content_not_by_place(
  run, make_config, tmp_path
):
  rng = np.random.default_rng(0)
  arrays = {
    f"{name}_{split}": value
    for split in ("train", "test")
    for name, value in {
      "x": rng.integers(0, 255, (64, 4, 4), np.uint8),
      "y": np.arange(64, dtype=np.uint8) % 10,
    }.items()
  }
  np.savez(tmp_path / "here.npz", **arrays)
  (tmp_path / "there.npz").write_bytes((tmp_path / "here.npz").read_bytes())
  first, _ = run(data__source=f"file:{tmp_path / 'here.npz'}")
  second, _ = run(data__source=f"file:{tmp_path / 'there.npz'}")
  assert second == first
  arrays["x_train"][0] += 1
  np.savez(tmp_path / "there.npz", **arrays)
  with pytest.raises(WorkdirError, match=r"data.fingerprint: 'sha256:"):
    run(data__source=f"file:{tmp_path / 'there.npz'}")


def test_folder_with_a_run_but_no_config_is_refused(run):
  _, folder = run()
  (folder / "config.json").unlink()
  with pytest.raises(WorkdirError, match=r"metrics.jsonl.* but no config.json"):
    run()


def test_damaged_config_is_refused(run):
  _, folder = run()
  (folder / "config.json").write_text("{")
  with pytest.raises(WorkdirError, match=r"config.json is damaged"):
    run()


def test_workdir_in_use_is_refused(run, tmp_path):
  with (
    Lock(tmp_path / "run"),
    pytest.raises(WorkdirError, match="in use by another process"),
  ):
    run()


def test_workdir_that_is_a_file_is_refused(run, tmp_path):
  (tmp_path / "run").write_text("precious")
  with pytest.raises(WorkdirError, match="is not a folder"):
    run()
  assert (tmp_path / "run").read_text() == "precious"


def test_nan_stops_the_run_and_names_step_and_metric(run, monkeypatch):
  real = loop.place_batch

  calls = []

  def poisoned(batch, mesh, **options):
    calls.append(None)
    inputs = batch["inputs"].astype(np.float32)
    if len(calls) == 6:
      inputs[0] = np.nan
    return real({**batch, "inputs": inputs}, mesh, **options)

  monkeypatch.setattr(loop, "place_batch", poisoned)
  with pytest.raises(
    NonFiniteMetricError, match=r"train/loss is nan at step 6;"
  ):
    run()


def test_nan_is_never_saved(run, monkeypatch, tmp_path):
  test_nan_stops_the_run_and_names_step_and_metric(run, monkeypatch)
  saved = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
  assert saved == ["000004"]


@pytest.mark.slow
def test_early_stopping_ends_the_run_for_good(run):
  options = {
    "early_stopping__patience": 2,
    "eval_every": 1,
    "total_steps": 50,
    "optim__learning_rate": 0.0,
  }
  result, folder = run(**options)
  assert result["step"] == 3  # The best at 1, then two that are no better.
  again, _ = run(**options)
  assert again == result
  (folder / "result.json").unlink()
  assert run(**options)[0]["step"] == 3


def test_evaluation_of_a_checkpoint_equals_the_result(run):
  result, folder = run()
  confusions = {}
  evaluation = runner.evaluate_run(folder, confusions=confusions)
  for split, classes in evaluation["classes"].items():
    confusion, metrics = confusions[split], evaluation["metrics"]
    accuracy = np.trace(confusion) / confusion.sum()
    assert accuracy == pytest.approx(metrics[f"{split}/accuracy"])
    assert [*classes] == [*"0123456789"]
    support = [figures["support"] for figures in classes.values()]
    assert support == confusion.sum(axis=1).tolist()
  assert evaluation == json.loads((folder / "evaluation.json").read_text())
  assert evaluation["run_id"] == result["run_id"]
  assert result["metrics"].items() <= evaluation["metrics"].items()
  assert "train/accuracy" in evaluation["metrics"]
  assert runner.evaluate_run(folder, "12") == evaluation
  assert runner.evaluate_run(folder, "8")["step"] == 8


def test_best_checkpoint_is_the_one_with_the_best_metric(run):
  _, folder = run(eval_every=1, total_steps=10)
  lines = lines_without_time(folder)
  best = max(lines, key=lambda line: line["valid/accuracy"])
  evaluation = runner.evaluate_run(folder, "best")
  assert evaluation["step"] == best["step"]
  np.testing.assert_allclose(
    evaluation["metrics"]["valid/accuracy"], best["valid/accuracy"], rtol=1e-6
  )


def test_last_step_is_scored_though_no_cadence_meets_it(run):
  result, folder = run(eval_every=7)
  lines = lines_without_time(folder)
  scored = {m["step"]: m for m in lines if "valid/accuracy" in m}
  assert [*scored] == [7, 12]
  best = max(scored, key=lambda step: scored[step]["valid/accuracy"])
  assert result["best"]["step"] == best
  evaluation = runner.evaluate_run(folder, "best")
  assert (evaluation["step"], result["step"]) == (best, 12)
  for found in (evaluation, evaluation["best"]):
    assert result["best"]["metrics"].items() <= found["metrics"].items()
  last = runner.evaluate_run(folder)
  assert last["best"] == evaluation["best"]


def test_only_what_is_fully_quantized_is_best_or_stops_a_run(run, monkeypatch):
  options = {
    "optim__learning_rate": 0.0,
    "quant__phase_in__start": 6,
    "quant__phase_in__steps": 2,
    "early_stopping__patience": 2,
    "eval_every": 2,
    "checkpoint_every": 20,
    "statistics_every": 0,
    "total_steps": 20,
  }
  stop_after(monkeypatch, 10)
  with pytest.raises(runner.Interrupted):
    run(**options)
  result, folder = run(**options)
  # Equal all along: of those that count, at 8, 10 and 12, the first is best.
  assert (result["step"], result["best"]["step"]) == (12, 8)
  assert result["best"]["metrics"].items() <= result["metrics"].items()
  assert runner.load_run(folder, "best")[1].step == 8


@pytest.mark.parametrize(
  ("checkpoint", "message"),
  [
    ("7", r"--checkpoint=7 is not one of: last, best, 8, 12"),
    ("x", "last, best"),
  ],
)
def test_unknown_checkpoint_lists_those_there_are(run, checkpoint, message):
  _, folder = run()
  with pytest.raises(ValueError, match=message):
    runner.evaluate_run(folder, checkpoint)


def test_best_checkpoint_of_none_that_counts_says_from_where():
  class Early:
    directory, counted_from = "there", 9
    steps, best_step = (lambda self: [4, 8]), (lambda self: None)

  with pytest.raises(ValueError, match=r"steps in there, 4, 8, .* step 9 on"):
    trained._choose_step(Early(), "best")


def test_evaluation_without_a_run_is_an_error(tmp_path):
  with pytest.raises(WorkdirError, match=r"config.json does not exist"):
    runner.evaluate_run(pathlib.Path(tmp_path))


def test_evaluation_of_a_damaged_checkpoint_names_the_file(run):
  _, folder = run()
  victim = next((folder / "checkpoints" / "000012").rglob("_METADATA"))
  victim.unlink()
  with pytest.raises(ValueError, match=rf"{victim} is missing"):
    runner.evaluate_run(folder)


@pytest.mark.slow
def test_batch_statistics_are_trained_and_saved(run, make_config):
  options = {"config_name": "digits_cnn", "model__batch_norm": True}
  with_norm, folder = run("norm", **options)
  state = final_state(make_config(**options), folder)
  mean = state.variables["batch_stats"]["norm_0_0"]["mean"]
  assert np.abs(mean).max() > 0
  np.testing.assert_allclose(
    runner.evaluate_run(folder)["metrics"]["test/loss"],
    with_norm["metrics"]["test/loss"],
    rtol=1e-6,
  )
