"""Speed, against a clock that is turned by hand."""

import jax
import pytest

from bitnet_jax.analysis import chips
from bitnet_jax.train.devices import speed
from bitnet_jax.train.folder.metrics import read_metrics


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(speed.time, "monotonic", lambda: now[0])

  def turn(seconds):
    now[0] += seconds

  return turn


def test_work_is_that_of_one_chip_and_second(clock):
  measured = speed.Speed(examples=16, tokens=160)
  measured.begin(10)
  clock(4.0)
  found = measured.report(12)
  chip = 2 / 4.0 / jax.device_count()
  assert found["speed/examples_per_second_chip"] == 16 * chip
  assert found["speed/tokens_per_second_chip"] == 160 * chip
  assert "speed/utilization" not in found  # No peak of a CPU is known.
  clock(1.0)
  found = measured.report(13)  # Of the last step alone.
  assert found["speed/examples_per_second_chip"] == 16 / jax.device_count()


def test_lost_time_is_told_apart(clock):
  measured = speed.Speed(examples=1)
  with measured.losing("data"):
    clock(1.0)
  with pytest.raises(KeyError), measured.losing("other"):
    clock(2.0)
    raise KeyError
  clock(1.0)
  found = measured.report(1)
  assert found["speed/lost_to_data"] == 0.25
  assert found["speed/lost_to_other"] == 0.5
  assert "speed/tokens_per_second_chip" not in found


def test_utilization_holds_each_dtype_against_its_peak(clock, monkeypatch):
  chip = chips.Chip(memory=1, bfloat16=100.0, int8=200.0)
  monkeypatch.setattr(speed.chips, "find", lambda kind: chip)
  work = {"int8": 60.0, "float32": 20.0, "bfloat16": 10.0}
  measured = speed.Speed(examples=1, flops=work)
  with measured.losing("other"):
    clock(5.0)
  clock(1.0)
  found = measured.report(1)
  devices = jax.device_count()
  assert found["speed/utilization_int8"] == pytest.approx(0.3 / devices)
  assert found["speed/utilization_float"] == pytest.approx(0.3 / devices)
  assert found["speed/utilization"] == pytest.approx(0.6 / devices)


def test_runs_write_their_speed(run):
  _, folder = run(total_steps=4, log_every=2)
  lines = [r for r in read_metrics(folder) if "train/loss" in r]
  for line in lines:
    assert line["speed/examples_per_second_chip"] > 0
    assert 0 <= line["speed/lost_to_data"] <= 1
