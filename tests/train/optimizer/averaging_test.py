"""Averages of the parameters are what is evaluated, saved and read."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitnet_jax.programs import frozen
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.optimizer.averaging import (
  average_params,
  find_average,
)
from tests.train.conftest import final_state, lines_without_time

# A constant rate, so that the length of a run decides nothing else.
AVERAGED = {"optim__ema": 0.9, "optim__schedule": "constant"}


def test_weights_of_the_average_decay_and_sum_to_one():
  tx = optax.chain(optax.sgd(1.0), average_params(0.5))
  params = {"w": jnp.array([8.0], jnp.bfloat16)}
  state = tx.init(params)
  seen = []
  for gradient in (4.0, 2.0, 1.0):
    updates, state = tx.update({"w": jnp.array([gradient])}, state, params)
    params = optax.apply_updates(params, updates)
    seen.append(float(params["w"][0]))
  assert seen == [4.0, 2.0, 1.0]
  average = find_average(state)["w"]
  assert average.dtype == jnp.float32
  # The weights are a quarter, a half and one, divided by their sum.
  np.testing.assert_allclose(average, [3 / 1.75], rtol=1e-6)


def test_no_decay_averages_nothing():
  tx = average_params(0.0)
  params = {"w": jnp.array([1.0])}
  updates, state = tx.update({"w": jnp.array([2.0])}, tx.init(params), params)
  assert updates["w"] == 2
  assert find_average(state)["w"] == 3
  assert find_average(optax.adam(1.0).init(params)) is None


@pytest.fixture(scope="module")
def averaged(make_config, tmp_path_factory):
  """A run with averages: config, folder and result."""
  config = make_config(**AVERAGED, total_steps=8)
  folder = tmp_path_factory.mktemp("averaged") / "run"
  return config, folder, runner.run(config, folder)


@pytest.mark.slow
def test_training_is_that_without_averages(averaged, run):
  config, folder, _ = averaged
  plain, other = run("plain", total_steps=8, optim__schedule="constant")
  state = final_state(config, folder)
  jax.tree.map(
    np.testing.assert_array_equal,
    state.params,
    final_state(plain["config"], other).params,
  )
  gap = jax.tree.map(
    lambda a, p: np.abs(a - p).max(), state.evaluated_params, state.params
  )
  assert max(jax.tree.leaves(gap)) > 1e-3


def test_averages_are_evaluated_and_read(averaged, make_config, tmp_path):
  """By the run, by the model alone, by warm starts and by frozen models."""
  config, folder, result = averaged
  state = final_state(config, folder)
  expected = state.evaluated_params
  found = runner.load_model(folder).variables["params"]
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  later = build(make_config(init_from=str(folder)))
  with later.activate():
    start = later.start()
    metrics = later.evaluator()("test", start)
  jax.tree.map(np.testing.assert_array_equal, start.params, expected)
  wanted = {k: v for k, v in result["metrics"].items() if "test/" in k}
  assert {f"test/{k}": v for k, v in metrics.items()} == wanted
  frozen.freeze_run(folder, tmp_path / "frozen")
  found = frozen.evaluate_frozen(tmp_path / "frozen")["metrics"]
  assert wanted.items() <= found.items()


@pytest.mark.slow
def test_resumed_run_averages_to_the_bit(averaged, make_config, tmp_path):
  config, folder, result = averaged
  other = tmp_path / "run"
  runner.run(make_config(**AVERAGED, total_steps=4), other)
  found = runner.run(config, other)
  assert found["metrics"] == result["metrics"]
  jax.tree.map(
    np.testing.assert_array_equal,
    final_state(config, other),
    final_state(config, folder),
  )
  assert lines_without_time(other)[-1] == lines_without_time(folder)[-1]
