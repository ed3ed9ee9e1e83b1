"""Runs of crossed options, each trained once for all that is asked of it."""

import functools
import json
from collections.abc import Callable

import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.experiment import Experiment

pytest.register_assert_rewrite("tests.train.crossed.checks")
from tests.train.crossed import cases, checks  # noqa: E402


def _once(method: Callable) -> Callable:
  """Returns a method that makes a thing once an object."""
  name = f"_once_{method.__name__}"

  def wrapped(self):
    if name not in self.__dict__:
      self.__dict__[name] = method(self)
    return self.__dict__[name]

  return wrapped


@pytest.fixture(scope="package", autouse=True)
def programs():
  """Has equal experiments share their compiled programs.

  What is compiled again is the same to the bit, for which other tests start
  processes; here it would take most of the time.
  """
  build, built = runner.build, {}

  def build_once(config, folder=None):
    key = json.dumps(config, sort_keys=True)
    if key not in built:
      built[key] = build(config, folder)
    return built[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runner, "build", build_once)
    for name in ("train_step", "train_steps", "evaluator"):
      patch.setattr(Experiment, name, _once(getattr(Experiment, name)))
    yield


@pytest.fixture(scope="package")
def made(programs, tmp_path_factory):
  """Returns ``made(name)``, the finished run of a case."""

  @functools.cache
  def make(name: str) -> checks.Finished:
    case = cases.CASES[name]
    folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
    earlier = make(case.earlier).folder if case.earlier else None
    config = cases.make_config(case, folder, earlier)
    result = runner.run(config, folder / "run")
    return checks.Finished(case, config, folder / "run", result)

  return make
