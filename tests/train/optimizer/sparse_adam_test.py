"""A table whose rows make up for missed steps is the table of plain Adam."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitnet_jax.train.config.flags import load_config
from bitnet_jax.train.optimizer import optim, sparse_adam
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.step import make_train_step, make_train_steps
from tests.jaxprs import equations
from tests.train.conftest import CONFIGS

LENGTH, WIDTH, TOTAL = 40, 6, 60
# Sums are made in another order, and powers are not repeated products.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def options(**changes):
  config = load_config(str(CONFIGS / "docstrings_mlp.py"))
  values = optim.OptimOptions(**config["optim"])
  return dataclasses.replace(values, learning_rate=0.05, **changes)


@dataclasses.dataclass(frozen=True)
class Regression:
  """Sums of the rows in a batch are to be its targets."""

  def weight(self, batch):
    return jnp.float32(1)

  def totals(self, params, variables, batch, *, key, **_):
    table = params["table"]
    if "rows" in batch:
      table = jnp.take(table, batch["rows"], axis=0, mode="clip")
    noise = jax.random.normal(key, (WIDTH,))
    found = batch["counts"] @ table + params["bias"] + noise
    loss = jnp.sum((found - batch["target"]) ** 2)
    return {"loss": loss, "weight": jnp.float32(1)}, variables


def make_batches(count, seed=0):
  """Batches that read up to 5 of the rows; some rows are never read."""
  rng = np.random.default_rng(seed)
  batches = []
  for _ in range(count):
    n = rng.integers(1, 6)
    read = np.sort(rng.choice(LENGTH - 8, n, replace=False))
    counts = np.zeros(5, np.float32)
    counts[:n] = rng.integers(1, 4, size=n)
    fill = LENGTH + np.arange(5 - n)
    batches.append(
      {
        "rows": np.append(read, fill).astype(np.int32),
        "counts": counts,
        "target": rng.normal(size=WIDTH).astype(np.float32),
      }
    )
  return batches


def make_steps(settings):
  """Returns a fresh state, and functions that make one step, and several."""
  tx = optim.make_optimizer(settings, TOTAL)
  schedule = optim.learning_rate_schedule(settings, TOTAL)
  rng = np.random.default_rng(1)
  params = {
    "table": jnp.asarray(rng.normal(size=(LENGTH, WIDTH)), jnp.float32),
    "bias": jnp.zeros(WIDTH),
  }
  state = TrainState(jnp.int32(0), params, tx.init(params), {})
  step = make_train_step(Regression(), tx, schedule)
  table = sparse_adam.SparseAdam.make("table", settings, TOTAL)
  return state, jax.jit(step), jax.jit(make_train_steps(step, table))


def stack(batches):
  return {
    name: np.stack([batch[name] for batch in batches]) for name in batches[0]
  }


def assert_close(found, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected
  )


def slow(changes):
  return pytest.param(changes, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  "changes",
  [
    {"schedule": "linear", "warmup_steps": 10, "clip_norm": 0.5},
    slow({"name": "adam", "schedule": "constant"}),
    slow({"schedule": "cosine", "b1": 0.5, "b2": 0.9, "eps": 0.1}),
    slow({"schedule": "two_stage", "second_learning_rate": 0.01}),
  ],
  ids=str,
)
def test_dispatches_equal_single_steps(changes, monkeypatch):
  monkeypatch.setattr(
    sparse_adam, "_TERMS", 4
  )  # so that there are several groups
  monkeypatch.setattr(sparse_adam, "_AT_ONCE", 7 * WIDTH)  # and several chunks
  state, step, steps = make_steps(options(**changes))
  expected, key, batches = state, jax.random.key(0), make_batches(36)
  losses, found_losses = [], []
  for batch in batches:
    expected, metrics = step(expected, batch, key)
    losses.append(metrics)
  for start, count in ((0, 10), (10, 9), (19, 1), (20, 10), (30, 6)):
    part = stack((batches + batches)[start : start + 10])
    state, metrics = steps(state, part, key, jnp.int32(count))
    found_losses += [
      {name: value[i] for name, value in metrics.items()} for i in range(count)
    ]
  assert_close(found_losses, losses)
  assert_close(state, expected)
  assert int(state.step) == 36


def test_rows_that_are_never_read_stay_as_they_are():
  state, _, steps = make_steps(options())
  before = np.asarray(state.params["table"])
  state, _ = steps(
    state, stack(make_batches(10)), jax.random.key(0), jnp.int32(10)
  )
  moved = np.abs(state.params["table"] - before).max(1) > 0
  assert moved[: LENGTH - 8].sum() > 10
  assert not moved[LENGTH - 8 :].any()


def test_missed_steps_equal_steps_without_a_gradient():
  """One row after another, each with its own lag, by plain Adam in float64."""
  settings, room, first = options(schedule="linear"), 37, 200
  rng = np.random.default_rng(0)
  table, mu = rng.normal(size=(2, room + 1, WIDTH)).astype(np.float32)
  nu = (10.0 ** rng.uniform(-30, 4, size=table.shape)).astype(np.float32)
  nu[0], mu[1], nu[1] = 0, 0, 0
  mu[0] = 1e-9  # at a second moment of 0 only eps holds it
  made = np.arange(room + 1, dtype=np.int32)
  sparse = sparse_adam.SparseAdam.make("table", settings, 1_000)
  found = jax.jit(sparse._catch_up, static_argnames="room")(
    table,
    mu,
    nu,
    made,
    until=jnp.int32(room),
    first=jnp.int32(first),
    room=room,
  )
  p, m, v = (array.astype(np.float64) for array in (table, mu, nu))
  for i in range(room):
    late = made <= i
    m[late], v[late] = m[late] * settings.b1, v[late] * settings.b2
    m_hat = m / (1 - settings.b1 ** (first + i + 1))
    v_hat = v / (1 - settings.b2 ** (first + i + 1))
    rate = settings.learning_rate * (1 - (first + i) / 1_000)
    p[late] -= (rate * m_hat / (np.sqrt(v_hat) + settings.eps))[late]
  moved = p - table
  np.testing.assert_allclose(
    found[0] - table, moved, rtol=1e-3, atol=2e-7 * np.abs(table).max()
  )
  np.testing.assert_allclose(found[1], m, rtol=1e-5)
  np.testing.assert_allclose(found[2], v, rtol=1e-5)
  assert np.isfinite(found[0]).all()


def test_tables_that_decay_are_not_updated_by_rows():
  for changes in (
    {"weight_decay": 0.1},
    {
      "schedule": "two_stage",
      "second_learning_rate": 0.1,
      "second_weight_decay": 0.1,
    },
  ):
    assert (
      sparse_adam.SparseAdam.make("table", options(**changes), TOTAL) is None
    )
  adam = options(name="adam", weight_decay=0.1)  # which has no decay
  assert sparse_adam.SparseAdam.make("table", adam, TOTAL) is not None
  unused = options(second_weight_decay=0.1)
  assert sparse_adam.SparseAdam.make("table", unused, TOTAL) is not None


def test_state_keeps_its_structure():
  state, _, steps = make_steps(options(clip_norm=1.0))
  batches = stack(make_batches(3))
  after, _ = steps(state, batches, jax.random.key(0), jnp.int32(3))
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert optax.tree.get(after.opt_state, "mu")["table"].shape == (LENGTH, WIDTH)


def test_nothing_is_computed_for_the_whole_table(monkeypatch):
  monkeypatch.setattr(sparse_adam, "_AT_ONCE", 7 * WIDTH)
  state, step, steps = make_steps(options())
  batches, key = stack(make_batches(3)), jax.random.key(0)
  first = jax.tree.map(lambda a: a[0], batches)

  def computes(jaxpr):
    return [
      name
      for name in ("add", "sub", "mul", "div", "sqrt")
      for equation in equations(jaxpr.jaxpr, name)
      if equation.outvars[0].aval.shape == (LENGTH, WIDTH)
    ]

  assert computes(jax.make_jaxpr(step)(state, first, key))
  jaxpr = jax.make_jaxpr(steps)(state, batches, key, jnp.int32(3))
  assert not computes(jaxpr)
  assert list(equations(jaxpr.jaxpr, "scatter"))
