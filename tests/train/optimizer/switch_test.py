"""What a late start of quantization does."""

import numpy as np
import optax
import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder.metrics import read_metrics
from bitnet_jax.train.optimizer.optim import fresh_moments
from bitnet_jax.train.optimizer.switch import measure_switch
from tests.train.conftest import CONFIGS


def lines(losses):
  return [{"step": i + 1, "train/loss": x} for i, x in enumerate(losses)]


def test_spike_is_measured_from_the_level_before():
  losses = [5.0] * 5 + [1.0] * 10 + [4.0, 3.0] + [2.0] * 5 + [0.5] * 20
  found = measure_switch([*lines(losses), {"step": 9, "valid/loss": 1}], 15)
  assert found["switch/before"] == 1.0
  assert found["switch/spike"] == 3.0
  # Of ten losses, four times 2 and six times 0.5 are above 1, and so is
  # (3 * 2 + 7 * 0.5) / 10 not.
  assert found["switch/recovery_steps"] == 7 + 7


@pytest.mark.parametrize(
  ("before", "level"),
  [
    ([2.3], 2.3),
    ([2.3, 1.0], 1.0),
    ([2.3, 1.5, 1.0, 0.7, 0.5, 0.4, 0.32, 0.28], 0.3),
    ([2.3, *[1.0] * 5, 0.8, 0.4, 0.2], 0.3),
    ([2.3, 2.0, *[1.0] * 6, 0.5, 0.3, 0.3, 0.3], 0.3),
  ],
)
def test_descent_of_the_start_is_not_what_was_normal(before, level, caplog):
  start = len(before)
  after = [*[3.0] * 5, *[0.9 * level] * 20]
  found = measure_switch(lines([*before, *after]), start)
  np.testing.assert_allclose(found["switch/before"], level)
  np.testing.assert_allclose(found["switch/spike"], 3.0 - level)
  width = min(start, 10)
  assert found["switch/recovery_steps"] == 5 + width
  assert (f"{start} training losses" in caplog.text) == (start < 10)


def test_loss_that_stays_up_has_no_recovery():
  found = measure_switch(lines([1.0] * 10 + [2.0] * 30), 10)
  assert found == {"switch/before": 1.0, "switch/spike": 1.0}


def test_loss_that_never_rises_has_no_spike():
  found = measure_switch(lines([1.0] * 10 + [0.5] * 30), 10)
  assert found["switch/spike"] == 0


@pytest.mark.parametrize("start", [0, 40])
def test_one_side_alone_tells_nothing(start):
  assert measure_switch(lines([1.0] * 40), start) == {}


def test_fresh_moments_keep_the_schedules():
  params = {"w": np.ones(3, np.float32)}
  schedule = optax.linear_schedule(1.0, 0.0, 10)
  tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(schedule, weight_decay=schedule),
  )
  state = tx.init(params)
  for _ in range(3):
    _, state = tx.update({"w": np.ones(3, np.float32)}, state, params)
  found = fresh_moments(tx, state, params)
  assert optax.tree_utils.tree_get(found, "mu")["w"].tolist() == [0, 0, 0]
  adam, *schedules = found[1]
  assert int(adam.count) == 0
  assert [int(state.count) for state in schedules] == [3, 3]


@pytest.mark.slow
def test_optimizer_is_reset_at_the_switch_only(make_config, tmp_path):
  """Equal until the switch, and with a fresh optimizer from there on."""
  norms = {}
  for optimizer in ("keep", "reset"):
    config = make_config(
      total_steps=8,
      quant__phase_in__start=4,
      quant__phase_in__optimizer=optimizer,
    )
    result = runner.run(config, tmp_path / optimizer)
    assert {"switch/before", "switch/spike"} <= result["metrics"].keys()
    found = read_metrics(tmp_path / optimizer)
    norms[optimizer] = [m["train/loss"] for m in found if "train/loss" in m]
  # The first update after the reset shows in the loss of the next step.
  assert norms["keep"][:5] == norms["reset"][:5]
  assert norms["keep"][5] != norms["reset"][5]


@pytest.mark.slow
def test_rows_of_a_table_are_not_reset_apart():
  """Their moments are caught up by the step, which a reset does not follow."""
  config = runner.load_config(
    str(CONFIGS / "docstrings_mlp.py"),
    {"quant.phase_in.start": 4, "quant.phase_in.optimizer": "reset"},
  )
  assert build(config).sparse_adam() is None
  kept = runner.load_config(
    str(CONFIGS / "docstrings_mlp.py"), {"mesh.data": 1}
  )
  assert build(kept).sparse_adam() is not None
