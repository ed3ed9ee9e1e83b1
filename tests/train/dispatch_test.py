"""Many steps in one program, and a weight rounded once however often used."""

import jax
import numpy as np
import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.loop import train
from bitnet_jax.train.tasks.base import Supervised
from tests.jaxprs import equations
from tests.train.conftest import CONFIGS, SMALL, final_state, lines_without_time

SCHEDULES = {
  "plain": {},
  "phase-in": {"quant__phase_in__steps": 5, "quant__phase_in__start": 3},
  "random": {"model__dropout": 0.5, "quant__weights__rounding": "stochastic"},
}


@pytest.mark.parametrize(
  "schedule",
  [
    pytest.param(value, id=key, marks=[pytest.mark.slow] * (key != "plain"))
    for key, value in SCHEDULES.items()
  ],
)
def test_run_is_the_same_however_its_steps_are_dispatched(run, schedule):
  one, one_folder = run("one", **schedule)
  many, many_folder = run("many", steps_per_dispatch=5, **schedule)
  assert many["run_id"] == one["run_id"]
  assert many["metrics"] == one["metrics"]
  assert lines_without_time(many_folder) == lines_without_time(one_folder)
  config = many["config"]
  jax.tree.map(
    np.testing.assert_array_equal,
    final_state(config, many_folder),
    final_state(config, one_folder),
  )


@pytest.mark.slow
def test_stopped_run_goes_on_with_another_number_of_steps(run):
  same = {"optim__schedule": "constant"}
  _, once = run("once", total_steps=12, **same)
  run("twice", total_steps=7, steps_per_dispatch=3, **same)
  result, twice = run("twice", total_steps=12, steps_per_dispatch=4, **same)
  jax.tree.map(
    np.testing.assert_array_equal,
    final_state(result["config"], twice).params,
    final_state(result["config"], once).params,
  )


class Watcher:
  """A hook that notes what it is called with."""

  def __init__(self, due=()):
    self.due_at, self.calls = due, []

  def due(self, step):
    return step in self.due_at

  def __call__(self, step, state, metrics):
    self.calls.append((step, int(state["step"])))


def dispatched(*, due=(), total_steps=10, room=4, phase_in=0):
  """Which steps a loop that only counts puts into one dispatch."""
  watcher = Watcher(due)
  mesh = jax.make_mesh((1, 1), ("data", "fsdp"), devices=jax.devices()[:1])

  def train_steps(state, batches, key, count, strengths=None):
    assert batches["x"].shape == (room, 2)
    assert (strengths is None) == (state["step"] >= phase_in)
    taken = np.asarray(batches["x"])[: int(count), 0]
    np.testing.assert_array_equal(taken, state["step"] + np.arange(int(count)))
    return {"step": state["step"] + int(count)}, {}

  class State(dict):
    step = 0

  train(
    State(step=0),
    lambda *_: pytest.fail("a single step was taken"),
    lambda step: {"x": np.full(2, step)},
    mesh=mesh,
    key=jax.random.key(0),
    strength=lambda step: np.float32(0.5) if step < phase_in else None,
    hooks=[watcher],
    total_steps=total_steps,
    should_stop=lambda: False,
    train_steps=train_steps,
    steps_per_dispatch=room,
  )
  assert [step for step, _ in watcher.calls] == [s for _, s in watcher.calls]
  return [step for step, _ in watcher.calls]


def test_dispatch_ends_where_a_hook_or_another_program_is_due():
  assert dispatched() == [4, 8, 10]
  assert dispatched(due=(3, 8)) == [3, 7, 8, 10]
  assert dispatched(phase_in=6) == [4, 6, 10]


def test_convolutions_on_cpu_are_dispatched_one_by_one(make_config):
  def several(name):
    return build(make_config(name, steps_per_dispatch=3)).train_steps()

  assert several("digits_cnn") is None
  assert several("digits_mlp") is not None


def test_step_is_traced_once_and_the_model_not_more_than_needed(
  make_config, tmp_path, monkeypatch
):
  steps, models = [], []
  totals, init = Supervised.totals, Supervised.init

  def counted(self, *args, **options):
    steps.append(options["deterministic"])
    return totals(self, *args, **options)

  def counted_init(self, key):
    models.append(key)
    return init(self, key)

  monkeypatch.setattr(Supervised, "totals", counted)
  monkeypatch.setattr(Supervised, "init", counted_init)
  config = make_config(total_steps=6, steps_per_dispatch=3, eval_every=6)
  runner.run(config, tmp_path)
  # A program of several steps, and one of an evaluation.
  assert sorted(steps) == [False, True]
  # For the shapes of the start and its program.
  assert len(models) == 1


def same_bits_when_optimized():
  """Parameters after some steps, alone and together, for each recipe."""
  same = {}
  for recipe in ("float", "b158", "b158_median"):
    found = []
    for room in (1, 4):
      overrides = SMALL | {"quant.recipe": recipe, "steps_per_dispatch": room}
      path = str(CONFIGS / "digits_mlp.py")
      experiment = build(runner.load_config(path, overrides))
      with experiment.activate():
        state = train(
          experiment.init(),
          experiment.train_step(),
          experiment.data.train_batch,
          mesh=experiment.mesh,
          key=experiment.train_key(),
          strength=lambda step: None,
          hooks=[],
          total_steps=10,
          should_stop=lambda: False,
          train_steps=experiment.train_steps(),
          steps_per_dispatch=room,
        )
      found.append([np.asarray(a).tobytes() for a in jax.tree.leaves(state)])
    same[recipe] = found[0] == found[1]
  return same


@pytest.mark.slow
def test_bits_are_the_same_as_users_compile_them(optimized):
  same = optimized(same_bits_when_optimized)
  assert same == {"float": True, "b158": True, "b158_median": True}


def roundings(config, shape):
  """How often a step rounds an array of this shape, loops run through."""
  experiment = build(config)
  with experiment.activate():
    step = experiment.train_step()
    state = experiment.abstract_state()
    jaxpr = jax.make_jaxpr(step)(
      state, experiment.data.train_batch(0), experiment.train_key()
    )
  loops = list(equations(jaxpr.jaxpr, "scan"))
  inside = [
    eqn
    for loop in loops
    for eqn in equations(loop.params["jaxpr"].jaxpr, "round")
  ]
  everywhere = list(equations(jaxpr.jaxpr, "round"))
  of_shape = lambda eqns: [e for e in eqns if e.outvars[0].aval.shape == shape]  # noqa: E731
  return len(of_shape(everywhere)), len(of_shape(inside))


@pytest.mark.parametrize("parts", (1, 4))
def test_kernel_is_rounded_once_a_step(make_config, parts):
  config = make_config(optim__accumulate_steps=parts)
  assert roundings(config, (64, 16)) == (1, 0)
