"""Sweeps whose runs write their results without training."""

import contextlib
import json
import pathlib
import signal

import pytest

from bitnet_jax.programs import comparing
from bitnet_jax.programs.sweeping import folder as folders
from bitnet_jax.programs.sweeping import members, plan, sweep
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.config import loading
from bitnet_jax.train.folder import workdir
from bitnet_jax.train.folder.metrics import NonFiniteMetricError
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.interrupt import Interrupt, Interrupted
from tests.train.conftest import SMALL


@pytest.fixture
def config():
  found = loading.load("digits_mlp")
  found.update_from_flattened_dict(SMALL)
  return found


@pytest.fixture
def ran(monkeypatch):
  """The names of runs, in order; ``ran.errors`` has what they raise."""

  class Ran(list):
    def __init__(self):
      self.errors, self.origins, self.ignoring = {}, [], ""

  ran = Ran()

  def run(config, folder, *, origin, on_step, make=None):
    experiment = build(config)
    path = pathlib.Path(folder)
    ran.append(path.name)
    ran.origins.append(origin)
    on_step(0)
    if path.name in ran.errors:
      raise ran.errors[path.name]
    if path.name == ran.ignoring:
      with Interrupt(), contextlib.suppress(Interrupted):
        signal.raise_signal(signal.SIGTERM)
    path.mkdir(parents=True, exist_ok=True)
    workdir.write_config(path, experiment.config, experiment.fingerprint)
    metrics = {"test/accuracy": 0.9, "valid/accuracy": 0.9}
    result = {
      "run_id": experiment.run_id,
      "step": experiment.total_steps,
      "config": experiment.config,
      "metrics": metrics,
      "best": None,
    }
    workdir.write_json(path / "result.json", result)
    on_step(experiment.total_steps)
    return result

  monkeypatch.setattr(runner, "run", run)
  monkeypatch.setattr(members.jax, "clear_caches", lambda: None)
  monkeypatch.setattr(sweep, "keep_compiled", lambda: None)
  return ran


RECIPES = {"quant.recipe": ["float", "b158"]}


def test_members_run_once_and_a_larger_grid_adds_some(config, ran, tmp_path):
  root = tmp_path / "sweep"
  origin = Origin(command="sweep", overrides={"log_every": 1})
  found = sweep.sweep(config, RECIPES, root, origin=origin)
  names = ["quant.recipe=float", "quant.recipe=b158"]
  assert ran == names
  assert found.finished == [f"{root / name}" for name in names]
  assert ran.origins[0].command == "sweep"
  overrides = {"log_every": 1, "quant.recipe": "float"}
  assert ran.origins[0].overrides == overrides
  ran.clear()
  assert sweep.sweep(config, RECIPES, root).finished == found.finished
  assert ran == []
  more = {"quant.recipe": ["twn", "float"]}
  sweep.sweep(config, more, root)
  assert ran == ["quant.recipe=twn"]
  content = json.loads((root / "sweep.json").read_text())
  assert {*content["members"]} == {*names, "quant.recipe=twn"}
  assert content["grid"] == more
  # A comparison has the earlier members, too.
  report = comparing.compare([root])
  assert len(report.comparisons[0].groups) == 3


def test_failed_members_are_recorded_and_tried_again(config, ran, tmp_path):
  root = tmp_path / "sweep"
  ran.errors = {
    "quant.recipe=float": NonFiniteMetricError("train/loss is nan at step 7"),
  }
  found = sweep.sweep(config, RECIPES, root)
  assert found.failed == {"quant.recipe=float": "train/loss is nan at step 7"}
  assert found.finished == [f"{root / 'quant.recipe=b158'}"]
  content = json.loads((root / "sweep.json").read_text())
  errors = {n: member["error"] for n, member in content["members"].items()}
  assert errors == {**found.failed, "quant.recipe=b158": None}
  ran.errors = {}
  ran.clear()
  assert not sweep.sweep(config, RECIPES, root).failed
  assert ran == ["quant.recipe=float"]


def test_signal_ends_the_sweep_and_names_the_member(config, ran, tmp_path):
  ran.errors = {"quant.recipe=b158": Interrupted(signal.SIGINT, "at step 3")}
  with pytest.raises(
    Interrupted, match=r"^quant.recipe=b158: stopped by SIGINT"
  ):
    sweep.sweep(config, RECIPES, tmp_path)
  ran.errors = {}
  ran.clear()
  sweep.sweep(config, RECIPES, tmp_path)
  assert ran == ["quant.recipe=b158"]


def test_signal_that_a_library_ignores_ends_the_sweep(config, ran, tmp_path):
  ran.ignoring = "quant.recipe=float"
  with pytest.raises(Interrupted, match="SIGTERM between two members") as error:
    sweep.sweep(config, RECIPES, tmp_path)
  assert error.value.signal == signal.SIGTERM
  assert ran == ["quant.recipe=float"]


def test_mistakes_of_any_member_are_found_before_the_first_trains(
  config, ran, tmp_path
):
  for values, part in (
    ({"quant.recipe": ["float", "b159"]}, "quant.recipe=b159: quant.recipe is"),
    ({"data.batch_size": [32, 0]}, "data.batch_size=0: data.batch_size is 0"),
    ({"optim.warmup_steps": [0, 12]}, "optim.warmup_steps=12: optim.warmup"),
    ({"log_every": [1, 2]}, "log_every=1 and log_every=2 are the same run"),
    ({"data.source": ["embedded:digits", "file:no.npz"]}, "file:no.npz: "),
  ):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
      sweep.sweep(config, values, tmp_path / "sweep")
    assert part in str(error.value)
    assert not (tmp_path / "sweep").exists()
  assert ran == []


def test_length_of_the_grid_overrides_that_of_the_config(tmp_path):
  config = loading.load("digits_mlp")  # It has total_epochs.
  found = plan.plan(config, {"total_steps": [5, 6]}, tmp_path)
  assert [member.total_steps for member in found] == [5, 6]


def test_changed_config_is_refused_with_both_values(config, ran, tmp_path):
  sweep.sweep(config, {"seed": [0]}, tmp_path)
  config.optim.learning_rate = 0.5
  config.seed = 9  # Every member has its own.
  config.log_every = 5
  with pytest.raises(workdir.WorkdirError) as error:
    sweep.sweep(config, {"seed": [0, 1]}, tmp_path)
  assert "what differs: optim.learning_rate: 0.01 there, 0.5 now" in str(
    error.value
  )
  assert "seed" not in str(error.value)
  config.optim.learning_rate = 0.01
  ran.clear()
  sweep.sweep(config, {"seed": [0, 1]}, tmp_path)
  assert ran == ["seed=1"]


def test_folders_of_something_else_are_refused(config, ran, tmp_path):
  runner.run(config.to_dict(), tmp_path / "run", origin=None, on_step=print)
  ran.clear()
  for name, file, part in (
    ("run", None, "holds a single run"),
    ("frozen", "model.json", "holds a frozen model"),
  ):
    if file:
      (tmp_path / name).mkdir()
      (tmp_path / name / file).write_text("{}")
    with pytest.raises(workdir.WorkdirError, match=part):
      sweep.sweep(config, RECIPES, tmp_path / name)
  (tmp_path / "file").touch()
  with pytest.raises(workdir.WorkdirError, match="is not a folder"):
    sweep.sweep(config, RECIPES, tmp_path / "file")
  (tmp_path / "bad").mkdir()
  (tmp_path / "bad" / "sweep.json").write_text("[]")
  with pytest.raises(workdir.WorkdirError, match=r"sweep.json is damaged"):
    sweep.sweep(config, RECIPES, tmp_path / "bad")
  (tmp_path / "sweep").mkdir()
  (tmp_path / "run").rename(tmp_path / "sweep" / "quant.recipe=b158")
  config.seed = 4
  with pytest.raises(workdir.WorkdirError, match=r"another run.*seed: 0 there"):
    sweep.sweep(config, RECIPES, tmp_path / "sweep")
  assert ran == []


def test_run_into_the_folder_of_a_sweep_is_refused(tmp_path):
  (tmp_path / "sweep.json").write_text("{}")
  with pytest.raises(workdir.WorkdirError, match="holds a sweep"):
    workdir.check_is_run(tmp_path)


def test_folder_in_use_is_waited_for_and_named(tmp_path, monkeypatch):
  monkeypatch.setattr(folders, "_PATIENCE", 0.1)
  monkeypatch.setattr(folders, "_POLL", 0.01)
  with folders.locked(tmp_path / "a"):
    with pytest.raises(workdir.WorkdirError, match="in use by another"):
      with folders.locked(tmp_path / "a"):
        pass
  with folders.locked(tmp_path / "a") as descriptor:
    assert descriptor > 0


def test_number_of_workers_is_checked(config, tmp_path):
  with pytest.raises(ValueError, match="--workers=0: it must be at least 1"):
    sweep.sweep(config, RECIPES, tmp_path, workers=0)


def test_data_are_read_once_for_members_that_read_the_same(
  config, tmp_path, monkeypatch
):
  read = []
  load = plan.load_data
  monkeypatch.setattr(
    plan, "load_data", lambda *args: read.append(1) or load(*args)
  )
  values = {"seed": [0, 1], "quant.recipe": ["float", "b158"]}
  found = plan.plan(config, values, tmp_path)
  assert len(read) == 1
  # Checked with the data of another seed, they are the runs that train.
  for member in found:
    assert member.run_id == build(member.config).run_id
  assert len({member.run_id for member in found}) == 4
  plan.plan(config, {"data.batch_size": [16, 32]}, tmp_path)
  assert len(read) == 3
