"""One update: its gradient, its randomness, and what it is compiled for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitnet_jax import BitDense
from bitnet_jax.train.build import build
from bitnet_jax.train.devices.mesh import place_batch
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.step import make_train_step
from tests.train.conftest import first_losses

# Sums of float32 in another order.
REORDERED = 1e-5


class Regression:
  """The simplest task: a linear model, and a loss weighted by a mask."""

  def weight(self, batch):
    return batch["mask"].sum()

  def totals(self, params, variables, batch, *, key, deterministic, strength):
    noise = 0.0 if deterministic else 0.1 * jax.random.normal(key)
    error = batch["x"] @ params["w"] - batch["y"] + noise * batch["noisy"]
    if strength is not None:
      error = error * strength
    totals = {
      "loss": (error**2 * batch["mask"]).sum(),
      "weight": batch["mask"].sum(),
    }
    return totals, {"calls": variables["calls"] + 1}


def make_batch(noisy=0.0):
  rng = np.random.default_rng(0)
  return {
    "x": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32),
    "y": jnp.asarray(rng.normal(size=8), jnp.float32),
    "mask": jnp.array([1, 1, 1, 0, 1, 1, 1, 0], jnp.float32),
    "noisy": jnp.full(8, noisy),
  }


def make_state(dtype=jnp.float32):
  params = {"w": jnp.array([0.5, -1.0, 2.0], dtype)}
  tx = optax.sgd(0.5)
  state = TrainState(
    jnp.int32(0), params, tx.init(params), {"calls": jnp.int32(0)}
  )
  return state, tx


def take_step(batch, *, seed=0, step=0, dtype=jnp.float32, **options):
  state, tx = make_state(dtype)
  state = state.replace(step=jnp.int32(step))
  schedule = optax.linear_schedule(0.5, 0.0, 10)
  train_step = jax.jit(make_train_step(Regression(), tx, schedule, **options))
  return train_step(state, batch, jax.random.key(seed))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_update_is_the_gradient_of_the_mean_over_the_mask(parts):
  batch = {k: np.asarray(v, np.float64) for k, v in make_batch().items()}
  w = np.array([0.5, -1.0, 2.0])
  error = (batch["x"] @ w - batch["y"]) * batch["mask"]
  gradient = 2 * error @ batch["x"] / 6  # Six of eight examples count.
  state, metrics = take_step(make_batch(), accumulate_steps=parts)
  np.testing.assert_allclose(state.params["w"], w - 0.5 * gradient, REORDERED)
  np.testing.assert_allclose(metrics["loss"], (error**2).sum() / 6, REORDERED)
  norm = np.linalg.norm(gradient)
  np.testing.assert_allclose(metrics["grad_norm"], norm, REORDERED)
  assert sorted(metrics) == ["grad_norm", "learning_rate", "loss"]
  # Variables pass through every part.
  assert state.variables["calls"] == parts


@pytest.mark.parametrize("parts", [1, 2])
def test_parameters_keep_their_dtype(parts):
  state, _ = take_step(make_batch(), dtype=jnp.bfloat16, accumulate_steps=parts)
  assert state.params["w"].dtype == jnp.bfloat16


def test_step_is_counted_and_its_learning_rate_reported():
  state, metrics = take_step(make_batch(), step=4)
  assert state.step == 5
  np.testing.assert_allclose(metrics["learning_rate"], 0.3, REORDERED)


def test_randomness_depends_on_key_and_step_alone():
  losses = {
    (seed, step): float(
      take_step(make_batch(noisy=1.0), seed=seed, step=step)[1]["loss"]
    )
    for seed in (0, 1)
    for step in (0, 1)
  }
  assert len(set(losses.values())) == 4
  again = take_step(make_batch(noisy=1.0), seed=1, step=1)[1]["loss"]
  assert float(again) == losses[1, 1]


def test_parts_of_a_batch_draw_differently():
  whole = take_step(make_batch(noisy=1.0))[1]["loss"]
  parts = take_step(make_batch(noisy=1.0), accumulate_steps=2)[1]["loss"]
  assert abs(whole - parts) > REORDERED * whole


@pytest.fixture(scope="module")
def lowered():
  """The names of all functions that were lowered, one for each time."""
  names = []

  def note(event, duration, **values):
    del duration
    if event.endswith("jaxpr_to_mlir_module_duration"):
      names.append(values["fun_name"])

  jax.monitoring.register_event_duration_secs_listener(note)
  return names


def test_strength_reaches_the_task_and_does_not_recompile(lowered):
  state, tx = make_state()
  step = jax.jit(make_train_step(Regression(), tx, lambda step: 0.0))
  lowered.clear()
  losses = [
    float(step(state, make_batch(), jax.random.key(0), strength)[1]["loss"])
    for strength in (np.float32(0.5), np.float32(1.0))
  ]
  np.testing.assert_allclose(losses[0], losses[1] / 4, REORDERED)
  assert lowered.count("jit(train_step)") == 1


def steps_of(config, steps, strengths=None):
  experiment = build(config)
  with experiment.activate():
    state, train_step = experiment.init(), experiment.train_step()
    start = state
    for step in range(steps):
      batch = place_batch(experiment.data.train_batch(step), experiment.mesh)
      strength = strengths[step] if strengths else None
      state, _ = train_step(state, batch, experiment.train_key(), strength)
  return start, state, train_step


@pytest.mark.parametrize(
  "mesh",
  [
    pytest.param((1, 1, 1), id="one device"),
    pytest.param((2, 2, 2), id="eight devices", marks=pytest.mark.slow),
  ],
)
def test_step_is_compiled_once_for_a_run(make_config, mesh, lowered):
  data, fsdp, tensor = mesh
  config = make_config(
    mesh__data=data,
    mesh__fsdp=fsdp,
    mesh__tensor=tensor,
    data__eval_batch_size=96,
  )
  lowered.clear()
  steps_of(config, 3)
  assert lowered.count("jit(train_step)") == 1


def test_state_is_handed_over(make_config):
  start, _, _ = steps_of(make_config(), 1)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start.params))


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_batch_statistics_move_towards_those_of_the_batch(make_config, parts):
  config = make_config(
    "digits_cnn", model__batch_norm=True, optim__accumulate_steps=parts
  )
  _, state, _ = steps_of(config, 1)
  for layer in ("norm_0_0", "norm_1_0"):
    stats = state.variables["batch_stats"][layer]
    assert np.abs(stats["mean"]).max() > 0
    assert np.abs(stats["var"] - 1).max() > 0


def test_training_is_deterministic(make_config):
  options = {
    "model__dropout": 0.5,
    "quant__weights__rounding": "stochastic",
    "data__random_flip": True,
  }
  first = first_losses(make_config(**options), steps=3)
  assert first_losses(make_config(**options), steps=3) == first


class Quantized(Regression):
  """A layer under a recipe in place of the linear model."""

  def __init__(self, recipe):
    self.layer = BitDense(8, use_bias=False, recipe=recipe)

  def totals(self, params, variables, batch, *, key, deterministic, strength):
    y = self.layer.apply({"params": params}, batch["x"], strength=strength)
    loss = (y**2 * batch["mask"][:, None]).sum()
    return {"loss": loss, "weight": batch["mask"].sum()}, variables


def losses_of_bad_inputs():
  """The losses of steps with one NaN in the input, by recipe."""
  found = {}
  x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
  params = {"kernel": jnp.asarray(x[:, :8])}
  x[3, 5] = np.nan
  batch = {"x": jnp.asarray(x), "mask": jnp.ones(64)}
  tx = optax.sgd(0.5)
  state = TrainState(jnp.int32(0), params, tx.init(params), {})
  for recipe in ("float", "b158", "bitnet_2b4t", "int8"):
    step = make_train_step(Quantized(recipe), tx, optax.constant_schedule(0.5))
    state_after, metrics = jax.jit(step)(state, batch, jax.random.key(0))
    found[recipe] = [
      float(metrics["loss"]),
      float(metrics["grad_norm"]),
      float(jnp.isnan(state_after.params["kernel"]).mean()),
    ]
  return found


@pytest.mark.slow
def test_bad_input_makes_the_loss_bad_under_every_recipe(optimized):
  found = optimized(losses_of_bad_inputs)
  for recipe, values in found.items():
    assert np.isnan(values[:2]).all(), recipe
  assert all(found[recipe][2] == 1 for recipe in found if recipe != "float")
