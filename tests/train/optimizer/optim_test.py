"""Schedules at points worked by hand, and what reaches optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitnet_jax.config import base
from bitnet_jax.train.optimizer.optim import (
  SCHEDULES,
  OptimOptions,
  decay_mask,
  learning_rate_schedule,
  make_optimizer,
  weight_decay_schedule,
)

# Schedules and updates are computed in float32.
FLOAT32 = 1e-6

OPTIONS = base("classification", "mlp").optim.to_dict() | {
  "learning_rate": 1.0,
  "schedule": "constant",
  "weight_decay": 0.1,
}


def make_options(**changes):
  return OptimOptions(**(OPTIONS | changes))


COS = np.cos


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({"schedule": "constant"}, {0: 1.0, 50: 1.0, 100: 1.0}),
    (
      {"schedule": "constant", "warmup_steps": 9},
      {0: 0.1, 1: 0.2, 4: 0.5, 9: 1.0, 100: 1.0},
    ),
    ({"schedule": "linear"}, {0: 1.0, 25: 0.75, 99: 0.01, 100: 0.0}),
    (
      {"schedule": "linear", "final_fraction": 0.2},
      {0: 1.0, 50: 0.6, 100: 0.2, 120: 0.2},
    ),
    (
      {"schedule": "linear", "warmup_steps": 20, "learning_rate": 2.1},
      {0: 0.1, 10: 1.1, 20: 2.1, 60: 1.05, 100: 0.0},
    ),
    (
      {"schedule": "cosine"},
      {0: 1.0, 25: (1 + COS(np.pi / 4)) / 2, 50: 0.5, 100: 0.0},
    ),
    (
      {"schedule": "cosine", "final_fraction": 0.1, "warmup_steps": 20},
      {0: 1 / 21, 10: 11 / 21, 20: 1.0, 60: 0.55, 100: 0.1},
    ),
    (
      {"schedule": "warmup_stable_decay"},
      {0: 1.0, 80: 1.0, 90: 0.5, 95: 0.25, 100: 0.0},
    ),
    (
      {
        "schedule": "warmup_stable_decay",
        "warmup_steps": 20,
        "decay_fraction": 0.5,
        "final_fraction": 0.5,
      },
      {10: 11 / 21, 20: 1.0, 60: 1.0, 80: 0.75, 100: 0.5},
    ),
    (
      {"schedule": "warmup_stable_decay", "decay_fraction": 0.0},
      {0: 1.0, 100: 1.0},
    ),
    (
      {"schedule": "two_stage", "second_learning_rate": 0.5},
      {0: 1.0, 40: 0.6, 49: 0.51, 50: 0.25, 75: 0.125, 100: 0.0, 110: 0.0},
    ),
    (
      {
        "schedule": "two_stage",
        "second_learning_rate": 0.6,
        "warmup_steps": 20,
        "stage_fraction": 0.25,
      },
      {0: 1 / 21, 20: 1.0, 39: 61 / 80, 40: 0.45, 60: 0.3, 100: 0.0},
    ),
  ],
)
def test_learning_rate_at_points_worked_by_hand(changes, expected):
  # The last of 101 updates comes after 100.
  schedule = learning_rate_schedule(make_options(**changes), 101)
  actual = [float(schedule(jnp.int32(step))) for step in expected]
  np.testing.assert_allclose(actual, [*expected.values()], FLOAT32, FLOAT32)


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_first_rate_is_positive_and_the_last_is_final(schedule, warmup):
  final = {"constant": 1.0, "two_stage": 0.0}.get(schedule, 0.1)
  options = make_options(
    schedule=schedule,
    warmup_steps=warmup,
    final_fraction=0.1,
    second_learning_rate=1.0,
  )
  for steps in (2, 3, 12):
    total = warmup + steps
    rates = learning_rate_schedule(options, total)(np.arange(16))
    rates = np.broadcast_to(rates, 16)[:total]
    rise, fall = np.split(np.diff(rates), [warmup])
    assert rates[0] > 0
    assert rates[warmup] == 1  # After as many updates as warm up.
    assert (rise > 0).all()
    assert (fall <= 0).all()
    np.testing.assert_allclose(rates[-1], final, FLOAT32, FLOAT32)


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({}, {0: 0.1, 49: 0.1, 50: 0.0, 99: 0.0}),
    ({"warmup_steps": 20}, {0: 0.1, 59: 0.1, 60: 0.0}),
    ({"second_weight_decay": 0.05}, {49: 0.1, 50: 0.05}),
    ({"stage_fraction": 0.1}, {9: 0.1, 10: 0.0}),
  ],
)
def test_two_stage_weight_decay_stops_with_the_first_stage(changes, expected):
  options = make_options(
    schedule="two_stage", second_learning_rate=0.5, **changes
  )
  schedule = weight_decay_schedule(options, 100)
  actual = [float(schedule(jnp.int32(step))) for step in expected]
  np.testing.assert_allclose(actual, [*expected.values()], FLOAT32)


PARAMS = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full((3,), 2.0)}


def updates_of(options, gradients, params=PARAMS, total_steps=100):
  """Returns the update of each step, the parameters held where they are."""
  tx = make_optimizer(options, total_steps)
  state, found = tx.init(params), []
  for gradient in gradients:
    grads = jax.tree.map(lambda p, g=gradient: jnp.full_like(p, g), params)
    updates, state = tx.update(grads, state, params)
    found.append(updates)
  return found


@pytest.mark.parametrize(
  ("mask", "expected"),
  [
    ("kernels", {"kernel": -0.2, "bias": 0.0}),
    ("all", {"kernel": -0.2, "bias": -0.2}),
  ],
)
def test_mask_says_what_decays(mask, expected):
  # Without a gradient an update is -learning_rate * weight_decay * parameter.
  (updates,) = updates_of(make_options(decay_mask=mask), [0.0])
  for name, value in expected.items():
    np.testing.assert_allclose(updates[name], value, FLOAT32, err_msg=name)


def test_mask_takes_matrices_but_biases_and_scales():
  matrix, vector = jnp.ones((4, 2)), jnp.ones(3)
  params = {"bias": matrix, "scale": matrix, "kernel": matrix, "x": vector}
  expected = {"bias": False, "scale": False, "kernel": True, "x": False}
  assert decay_mask(make_options(), params) == expected


def test_two_stage_decay_reaches_the_updates():
  options = make_options(schedule="two_stage", second_learning_rate=1.0)
  updates = updates_of(options, [0.0] * 4, total_steps=5)
  moved = [float(u["kernel"][0, 0]) for u in updates]
  np.testing.assert_allclose(moved, [-0.2, -0.15, 0, 0], FLOAT32)


def test_adam_never_decays():
  (updates,) = updates_of(make_options(name="adam", weight_decay=5.0), [0.0])
  np.testing.assert_array_equal(updates["kernel"], 0)


def adam_by_hand(gradients, *, b1, b2, eps):
  """The updates of Adam, as its paper writes them (arXiv 1412.6980)."""
  m = v = 0.0
  for t, g in enumerate(gradients, start=1):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    yield -(m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize(
  "moments",
  [
    {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    {"b1": 0.5, "b2": 0.9, "eps": 0.1},
    {"b1": 0.0, "b2": 0.5, "eps": 1.0},
  ],
)
def test_moments_reach_optax(name, moments):
  gradients = [1.0, -0.5, 0.25, 2.0]
  options = make_options(name=name, weight_decay=0.0, **moments)
  actual = [u["bias"][0] for u in updates_of(options, gradients)]
  expected = list(adam_by_hand(gradients, **moments))
  # Bias corrections near 1 lose digits in float32.
  np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_gradients_are_clipped_by_their_global_norm():
  # An epsilon of 1 lets the size of the gradient show in the update.
  options = {"name": "adam", "b1": 0.0, "b2": 0.0, "eps": 1.0}
  norm = 4.0 * np.sqrt(9)  # Nine gradients of 4.
  clipped = 4.0 * 6.0 / norm
  for clip_norm, gradient in ((6.0, clipped), (100.0, 4.0), (None, 4.0)):
    (updates,) = updates_of(make_options(clip_norm=clip_norm, **options), [4.0])
    expected = -gradient / (gradient + 1)
    np.testing.assert_allclose(updates["bias"], expected, FLOAT32)


def test_learning_rate_scales_the_update_and_follows_the_schedule():
  options = make_options(name="adam", schedule="linear", learning_rate=0.5)
  updates = updates_of(options, [1.0] * 3, total_steps=3)
  moved = [float(u["bias"][0]) for u in updates]
  # The ratio of Adam's moments is 1 for a constant gradient.
  np.testing.assert_allclose(moved, [-0.5, -0.25, 0.0], rtol=1e-4, atol=1e-7)


def test_optimizer_is_one_of_optax():
  assert isinstance(
    make_optimizer(make_options(), 10), optax.GradientTransformation
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"name": "sgd"}, r"optim.name is 'sgd', .* 'adamw', 'adam'"),
    ({"schedule": "cosin"}, r"optim.schedule is 'cosin', .*mean 'cosine'"),
    (
      {"schedule": "x"},
      r"'constant', 'linear', 'cosine', 'warmup_stable_decay', 'two_stage'",
    ),
    (
      {"decay_mask": "bias"},
      r"optim.decay_mask is 'bias', .* 'kernels', 'all'",
    ),
    ({"schedule": "two_stage"}, "needs optim.second_learning_rate"),
    ({"final_fraction": 1.5}, r"optim.final_fraction is 1.5; .* \[0, 1\]"),
    ({"decay_fraction": -0.1}, r"optim.decay_fraction is -0.1; .* \[0, 1\]"),
    ({"stage_fraction": float("nan")}, r"optim.stage_fraction is nan"),
    ({"learning_rate": -1.0}, "optim.learning_rate is -1.0; it must be >= 0"),
    ({"learning_rate": float("nan")}, "optim.learning_rate is nan"),
    ({"weight_decay": -1.0}, "optim.weight_decay is -1.0; it must be >= 0"),
    ({"second_weight_decay": -1.0}, "optim.second_weight_decay is -1.0"),
    ({"warmup_steps": -1}, "optim.warmup_steps is -1; it must be >= 0"),
    ({"accumulate_steps": 0}, "optim.accumulate_steps is 0; it must be >= 1"),
    ({"gradient_dtype": "float16"}, "optim.gradient_dtype is 'float16'"),
    ({"clip_norm": 0.0}, "optim.clip_norm is 0.0; it must exceed 0"),
    ({"clip_norm": float("nan")}, "optim.clip_norm is nan"),
    (
      {"schedule": "two_stage", "second_learning_rate": -1.0},
      "optim.second_learning_rate is -1.0",
    ),
    ({"b1": 1.0}, r"optim.b1 is 1.0; it must lie in \[0, 1\)"),
    ({"b2": -0.1}, r"optim.b2 is -0.1; it must lie in \[0, 1\)"),
    ({"eps": 0.0}, "optim.eps is 0.0; it must exceed 0"),
  ],
)
def test_option_out_of_range_is_named(changes, message):
  with pytest.raises(ValueError, match=message):
    make_options(**changes)
