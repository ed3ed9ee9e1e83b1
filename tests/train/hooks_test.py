"""What happens beside training, and when."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.layers.introspection import BitLayer
from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.quantizers.recipe import RECIPES, Recipe
from bitnet_jax.train import hooks
from bitnet_jax.train.config.groups import CheckpointOptions
from bitnet_jax.train.folder.seals import Progress

# Sums of float32 in another order.
REORDERED = 1e-6


class Recorder:
  """Stands for ``TrainMetrics``: keeps what is written."""

  def __init__(self):
    self.written, self.completed = {}, 0

  def write(self, step, metrics):
    self.written.setdefault(step, {}).update(metrics)

  def complete(self):
    self.completed += 1


def make_options(mode="max", keep_best=1):
  return CheckpointOptions(
    keep_last=2, keep_best=keep_best, metric="valid/accuracy", mode=mode
  )


def evaluate_at(every, **options):
  """Returns the steps of 10 at which the validation split is evaluated."""
  called = []
  evaluation = hooks.Evaluation(
    lambda state: called.append(state) or {"accuracy": 0.0},
    Recorder(),
    make_options(),
    Progress(),
    eval_every=every,
    **options,
  )
  for step in range(1, 11):
    evaluation(step, step, None)
  due = [step for step in range(1, 11) if evaluation.due(step)]
  assert called == due
  return called


@pytest.mark.parametrize(
  ("every", "expected"),
  [(None, []), (0, []), (1, [*range(1, 11)]), (3, [3, 6, 9]), (99, [])],
)
def test_evaluates_at_multiples_of_the_cadence(every, expected):
  assert evaluate_at(every) == expected


def test_evaluates_at_the_end_too():
  for every, expected in ((4, [4, 8, 10]), (5, [5, 10]), (99, [10]), (0, [])):
    assert evaluate_at(every, total_steps=10) == expected, every


@pytest.mark.parametrize(
  ("mode", "best"), [("max", Progress(0.5, 2, 2)), ("min", Progress(0.1, 3, 1))]
)
def test_evaluation_keeps_score_and_writes(mode, best):
  values = iter([0.2, 0.5, 0.1, 0.4])
  recorder = Recorder()
  evaluation = hooks.Evaluation(
    lambda state: {"accuracy": next(values), "loss": float(state)},
    recorder,
    make_options(mode),
    Progress(),
    eval_every=1,
  )
  for step in (1, 2, 3, 4):
    evaluation(step, step * 10, None)
  assert evaluation.progress == best
  assert evaluation.step == 4
  assert evaluation.metrics == {"valid/accuracy": 0.4, "valid/loss": 40.0}
  assert recorder.written[2] == {"valid/accuracy": 0.5, "valid/loss": 20.0}


def test_evaluation_goes_on_from_stored_progress():
  evaluation = hooks.Evaluation(
    lambda state: {"accuracy": 0.4},
    Recorder(),
    make_options(),
    Progress(0.5, 2),
    eval_every=1,
  )
  evaluation(3, None, None)
  assert evaluation.progress == Progress(0.5, 2, 1)


def test_evaluation_counts_under_full_quantization_only():
  values, recorder = iter([0.9, 0.8, 0.3, 0.4, 0.2]), Recorder()
  evaluation = hooks.Evaluation(
    lambda state: {"accuracy": next(values)},
    recorder,
    make_options(),
    Progress(),
    eval_every=1,
    counted_from=6,
  )
  found = []
  for step in (2, 4, 6, 8, 10):
    evaluation(step, None, None)
    found.append(evaluation.progress)
  assert found == [
    Progress(),
    Progress(),
    Progress(0.3, 6),
    Progress(0.4, 8),
    Progress(0.4, 8, 1),
  ]
  assert recorder.written[2] == {"valid/accuracy": 0.9}


@pytest.fixture
def save_at():
  """Returns ``save_at(values, ...)``: (step, metrics) pairs that were saved."""

  def save_at(values, *, checkpoint_every, keep_best=1, restored_step=0):
    saved, recorder = [], Recorder()
    checkpoints = types.SimpleNamespace(
      options=make_options(keep_best=keep_best),
      save=lambda step, state, progress, metrics: saved.append((step, metrics)),
    )
    evaluation = hooks.Evaluation(
      lambda state: {"accuracy": state},
      recorder,
      checkpoints.options,
      Progress(),
      eval_every=1,
    )
    saving = hooks.Saving(
      checkpoints,
      evaluation,
      recorder,
      checkpoint_every=checkpoint_every,
      restored_step=restored_step,
    )
    for step, value in enumerate(values, start=restored_step + 1):
      if value is not None:
        evaluation(step, value, None)
      saving(step, value, None)
    saving.save(step, None)
    assert recorder.completed == len(saved)
    return [(step, metrics.get("valid/accuracy")) for step, metrics in saved]

  return save_at


def test_saves_at_the_cadence_and_at_the_end(save_at):
  assert save_at([None] * 5, checkpoint_every=2) == [
    (2, None),
    (4, None),
    (5, None),
  ]


def test_never_saves_a_step_twice(save_at):
  assert save_at([None] * 4, checkpoint_every=2) == [(2, None), (4, None)]
  saved = save_at([None], checkpoint_every=1, restored_step=0)
  assert saved == [(1, None)]


def test_does_not_save_again_what_was_restored(save_at):
  saved = save_at([None, None], checkpoint_every=3, restored_step=3)
  assert saved == [(5, None)]


def test_saves_a_new_best_with_its_metrics(save_at):
  values = [0.5, 0.4, None, 0.6, None]
  saved = save_at(values, checkpoint_every=100)
  assert saved == [(1, 0.5), (4, 0.6), (5, None)]


def test_keeps_no_best_unless_asked(save_at):
  saved = save_at([0.5, 0.6, 0.7], checkpoint_every=100, keep_best=0)
  assert saved == [(3, 0.7)]


PER_CHANNEL = Recipe(Quantizer("absmean", (-1, 1), axis=0))
LAYERS = [
  BitLayer("dense", RECIPES["b158"], (0, 1)),
  BitLayer("blocks/conv", RECIPES["b158"], (0, 1, 2, 3)),
  BitLayer("channels", PER_CHANNEL, (0,)),
  BitLayer("head", RECIPES["float"], (0, 1)),
]


def make_params(rng):
  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  return {
    "dense": {"kernel": draw(6, 5)},
    "blocks": {"conv": {"kernel": draw(3, 3, 2, 4)}},
    "channels": {"kernel": draw(8, 3) * jnp.array([[1.0, 10.0, 0.1]])},
    "head": {"kernel": draw(5, 2)},
  }


def ternary(kernel, axes):
  """Codes and mean scale, by the formula of the paper."""
  scale = np.abs(kernel).mean(axes, keepdims=True)
  return np.clip(np.round(kernel / scale), -1, 1), scale.mean()


def as_state(params):
  return types.SimpleNamespace(params=params)


def test_code_statistics_are_those_of_numpy():
  rng = np.random.default_rng(0)
  before, after = make_params(rng), make_params(rng)
  recorder = Recorder()
  hook = hooks.CodeStatistics(LAYERS, recorder, statistics_every=2)
  hook(1, as_state(before), None)
  hook(2, as_state(after), None)
  assert list(recorder.written) == [2]
  expected = {}
  for path, axes in (
    ("dense", (0, 1)),
    ("blocks/conv", (0, 1, 2, 3)),
    ("channels", (0,)),
  ):
    kernels = []
    for params in (before, after):
      for name in path.split("/"):
        params = params[name]
      kernels.append(np.asarray(params["kernel"]))
    (old, _), (new, scale) = (ternary(kernel, axes) for kernel in kernels)
    expected |= {
      f"weights/{path}/negative_fraction": np.mean(new == -1),
      f"weights/{path}/zero_fraction": np.mean(new == 0),
      f"weights/{path}/positive_fraction": np.mean(new == 1),
      f"weights/{path}/flip_rate": np.mean(old != new),
      f"weights/{path}/scale": scale,
    }
  actual = recorder.written[2]
  assert sorted(actual) == sorted(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(actual[name], value, REORDERED, err_msg=name)
  assert 0 < actual["weights/dense/flip_rate"] < 1


def test_flip_rate_is_that_of_the_last_update_alone():
  rng = np.random.default_rng(0)
  states = [as_state(make_params(rng)) for _ in range(2)]
  recorder = Recorder()
  hook = hooks.CodeStatistics(LAYERS, recorder, statistics_every=3)
  for step, state in enumerate([*states, states[1], states[1]]):
    hook(step, state, None)
  assert recorder.written[3]["weights/dense/flip_rate"] == 0


@pytest.mark.parametrize(
  ("layers", "every"), [(LAYERS[-1:], 1), (LAYERS, None), ([], 1)]
)
def test_nothing_is_written_without_ternary_layers_or_cadence(layers, every):
  recorder = Recorder()
  hook = hooks.CodeStatistics(layers, recorder, statistics_every=every)
  for step in range(3):
    hook(step, as_state(make_params(np.random.default_rng(0))), None)
  assert recorder.written == {}


def test_first_step_after_a_resume_is_not_described_without_codes_before():
  recorder = Recorder()
  hook = hooks.CodeStatistics(LAYERS, recorder, statistics_every=2)
  hook(2, as_state(make_params(np.random.default_rng(0))), None)
  assert recorder.written == {}


@pytest.fixture
def traces(monkeypatch):
  """The calls of the profiler, which is not started for real."""
  calls, now = [], {}
  monkeypatch.setattr(
    "jax.profiler.start_trace", lambda path: calls.append((now["step"], path))
  )
  monkeypatch.setattr(
    "jax.profiler.stop_trace", lambda: calls.append((now["step"], "stop"))
  )
  return calls, now


@pytest.mark.parametrize(
  ("start", "steps", "last", "expected"),
  [
    (2, 3, 9, [(2, "there"), (5, "stop")]),
    (1, 1, 9, [(1, "there"), (2, "stop")]),
    (4, 9, 6, [(4, "there"), (6, "stop")]),  # The run ends before the trace.
    (8, 1, 6, []),
    (None, 3, 9, []),
  ],
)
def test_profile_starts_and_stops(
  traces, tmp_path, start, steps, last, expected
):
  calls, now = traces
  profile = hooks.Profile(tmp_path / "there", start=start, steps=steps)
  for now["step"] in range(1, last + 1):
    profile(now["step"], None, {"loss": jnp.zeros(())})
  profile.close()
  profile.close()
  path = str(tmp_path / "there")
  assert calls == [
    (s, path if what == "there" else what) for s, what in expected
  ]
