"""Which cases run, in which order, and what is recorded of them."""

import pytest

from bitnet_jax import studies
from bitnet_jax.programs.sweeping import together
from bitnet_jax.studies import records, running
from bitnet_jax.studies.case import by_name
from bitnet_jax.train import runner


class Trainer:
  """Stands for ``together.train``.

  Attributes:
    calls: the cases of each call.
    fails: names of cases that fail.
    diverges: names of cases that diverge.
    stops_after: number of outcomes after which it is interrupted, if any.
  """

  def __init__(self):
    self.calls, self.fails, self.diverges = [], (), ()
    self.stops_after = None

  def __call__(self, cases, *, workers, on_end):
    del workers
    self.calls.append({case.name: case for case in cases})
    for number, case in enumerate(cases):
      if number == self.stops_after:
        raise KeyboardInterrupt
      outcome = together.Outcome(
        name=case.name, config=case.config, run_id="abc"
      )
      if case.name in self.fails:
        outcome.error = "no memory"
      elif case.name in self.diverges:
        outcome.diverged, outcome.error = 7, "train/loss is nan at step 7"
      else:
        outcome.result = {
          "config": case.config,
          "versions": {},
          "metrics": {"test/loss": 1.0},
        }
      on_end(outcome)

  @property
  def names(self):
    """The names of the cases of each call."""
    return [[*call] for call in self.calls]


def make(*names, after=()):
  """Returns cases of which some start from others."""
  starts = dict(after)
  return by_name(
    studies.Case(
      "xor_mlp",
      {"part": name},
      after={"init_from": f"part={starts[name]},seed=0"}
      if name in starts
      else {},
    )
    for name in names
  )


@pytest.fixture
def train(monkeypatch):
  trainer = Trainer()
  monkeypatch.setattr(together, "train", trainer)
  return trainer


@pytest.fixture
def run(tmp_path):
  named = {"study": "small", "scale": "cpu", "plan": "p", "commit": None}
  recorder = running.Recorder(
    results=tmp_path / records.RESULTS_FILE, named=named
  )

  def run(cases, **arguments):
    running.run_missing(cases, tmp_path / "runs", recorder, **arguments)
    return recorder.results

  run.results = recorder.results
  return run


def recorded(path):
  return [record["cell"]["part"] for record in records.load(path)]


def test_stopped_study_goes_on_with_what_is_missing(train, run):
  train.stops_after = 2
  with pytest.raises(KeyboardInterrupt):
    run(make("a", "b", "c", "d"))
  with run.results.open("a") as file:
    file.write('{"schema": "bitnet_jax.stu')  # As a kill leaves it.
  train.stops_after = None
  run(make("a", "b", "c", "d"))
  assert train.names[1] == ["part=c,seed=0", "part=d,seed=0"]
  assert recorded(run.results) == ["a", "b", "c", "d"]
  run(make("a", "b", "c", "d"))
  assert len(train.calls) == 2


def test_recorded_configs_are_exact_and_those_of_their_cases(train, run):
  values = {
    "quant.rules": (("head|layer_0", "float"), ("layer_1", "b158")),
    "optim.learning_rate": 0.02 / 3,
  }
  cases = by_name([studies.Case("xor_mlp", {"part": "a"}, overrides=values)])
  run(cases)
  run(cases)
  assert len(train.calls) == 1
  (record,) = records.load(run.results)
  assert record["config"]["optim"]["learning_rate"] == 0.02 / 3


def test_cases_run_after_those_that_they_start_from(train, run, tmp_path):
  after = {"b": "a", "c": "b"}
  run(make("c", "b", "a", "d", after=after.items()))
  assert train.names == [
    ["part=a,seed=0", "part=d,seed=0"],
    ["part=b,seed=0"],
    ["part=c,seed=0"],
  ]
  root = tmp_path / "runs"
  last = train.calls[2]["part=c,seed=0"]
  assert last.config["init_from"] == f"{root / 'part=b,seed=0'}"
  assert last.folder is None
  assert train.calls[1]["part=b,seed=0"].folder == last.config["init_from"]


def test_start_of_a_missing_case_runs_again_without_its_folder(train, run):
  cases = make("a", "b", after=[("b", "a")])
  train.fails = ("part=b,seed=0",)
  with pytest.raises(RuntimeError, match=r"1 runs failed: part=b,.*no memory"):
    run(cases)
  train.fails = ()
  run(cases)
  assert train.names[2:] == [["part=a,seed=0"], ["part=b,seed=0"]]
  assert recorded(run.results) == ["a", "b"]


def test_failed_start_fails_its_cases_but_no_others(train, run):
  train.fails = ("part=a,seed=0",)
  with pytest.raises(RuntimeError, match="2 runs failed"):
    run(make("a", "b", "c", after=[("b", "a")]))
  assert recorded(run.results) == ["c"]


def test_diverged_run_is_recorded_without_metrics(train, run):
  train.diverges = ("part=a,seed=0",)
  (found,) = records.load(run(make("a")))
  assert (found["diverged"], found["step"], found["metrics"]) == (7, 7, {})
  assert found["run_id"] == "abc"
  assert found["date"] and found["device"]
  assert records.expand(found["config"])["model"]["width"] == 8


def test_kept_runs_have_folders_and_keys_for_all_cases(train, run):
  run(make("a"), overrides={"mesh.data": 2}, keeps_all=True)
  (case,) = train.calls[0].values()
  assert case.folder.endswith("runs/part=a,seed=0")
  assert case.config["mesh"]["data"] == 2


def test_measured_metrics_are_recorded(train, run, tmp_path):
  recorder = running.Recorder(
    results=tmp_path / "r.jsonl",
    named={"scale": "cpu", "plan": "p"},
    measure=lambda config, variables: {"width": config["model"]["width"]},
  )
  running.run_missing(make("a"), tmp_path, recorder)
  (found,) = records.load(recorder.results)
  assert found["metrics"] == {"test/loss": 1.0, "width": 8}


def test_length_in_steps_replaces_the_epochs_of_the_config(tmp_path):
  case = studies.Case("xor_mlp", {}, 2, {"total_steps": 5})
  config = running.config_of(case, tmp_path)
  assert (config["total_steps"], config["total_epochs"]) == (5, None)
  assert config["seed"] == 2
  assert runner.load_config("xor_mlp")["total_epochs"] == 200
