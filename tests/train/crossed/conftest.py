"""Runs of crossed options, each trained once for all that is asked of it."""

import functools
import json

import pytest

from bitnet_jax.train import experiment, runner
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.step import make_eval_step

pytest.register_assert_rewrite("tests.train.crossed.checks")
from tests.train.crossed import cases, checks  # noqa: E402


@pytest.fixture(scope="package", autouse=True)
def programs():
  """Has equal experiments share their compiled programs.

  What is compiled again is the same to the bit, for which other tests start
  processes; here it would take most of the time.
  """
  build, built, kept = runner.build, {}, {}

  def build_once(config, folder=None):
    key = json.dumps(config, sort_keys=True)
    if key not in built:
      built[key] = build(config, folder)
    return built[key]

  def once(method):
    # Of a task, which an experiment shares with those that replace it.
    def wrapped(self):
      key = (method.__name__, id(self.train_task))
      if key not in kept:
        kept[key] = self.train_task, method(self)
      return kept[key][1]

    return wrapped

  def make_eval_step_once(task, **kernels):
    if id(task) not in kept:
      kept[id(task)] = task, make_eval_step(task, **kernels)
    return kept[id(task)][1]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runner, "build", build_once)
    # The same function, of which ``jax.jit`` then has one program.
    patch.setattr(experiment, "make_eval_step", make_eval_step_once)
    for name in ("train_step", "train_steps"):
      patch.setattr(Experiment, name, once(getattr(Experiment, name)))
    make_init = Experiment._made_init.func
    patch.setattr(Experiment, "_made_init", property(once(make_init)))
    yield


@pytest.fixture(scope="package")
def made(programs, tmp_path_factory):
  """Returns ``made(case)``, the finished run of a case or of its name."""

  @functools.cache
  def make(case: str | cases.Case) -> checks.Finished:
    case = cases.CASES[case] if isinstance(case, str) else case
    folder = tmp_path_factory.mktemp(case.family)
    earlier = make(case.earlier).folder if case.earlier else None
    config = cases.make_config(case, folder, earlier)
    result = runner.run(config, folder / "run")
    return checks.Finished(case, config, folder / "run", result)

  return make
