"""Where metrics go, and what is kept of them."""

import json
import struct

import jax.numpy as jnp
import pytest
from tensorboardX.proto import event_pb2

from bitnet_jax.train.folder import metrics
from bitnet_jax.train.folder.metrics import (
  METRICS_FILE,
  MetricsWriter,
  NonFiniteMetricError,
  TrainMetrics,
  check_finite,
  read_metrics,
)


@pytest.fixture
def write(tmp_path):
  """Returns ``write(*step_and_metrics, restored_step=0)``: one start."""

  def write(*records, restored_step=0):
    writer = MetricsWriter(tmp_path, restored_step=restored_step)
    for step, values in records:
      writer.write(step, values)
    writer.close()

  return write


@pytest.fixture
def clock(monkeypatch):
  """A clock that stands still unless it is told to advance."""

  class Clock:
    now = 1000.0

    def monotonic(self):
      return self.now

    def time(self):
      return self.now

  clock = Clock()
  monkeypatch.setattr(metrics, "time", clock)
  return clock


def events(workdir):
  """Returns all TensorBoard events, file by file in order of writing."""
  found = []
  for path in sorted((workdir / "tensorboard").iterdir()):
    data = path.read_bytes()
    while data:
      (size,) = struct.unpack("<Q", data[:8])  # Then a CRC of 4 bytes.
      found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
      data = data[12 + size + 4 :]
  return found


def scalars(workdir):
  return [
    (event.step, value.tag, value.simple_value)
    for event in events(workdir)
    for value in event.summary.value
  ]


def test_what_is_written_for_one_step_is_one_sorted_line(write, tmp_path):
  write((1, {"b": 1.0, "c": 2.0}), (1, {"a": 3.0}), (4, {"a": 0.5}))
  lines = (tmp_path / METRICS_FILE).read_text().splitlines()
  first, second = map(json.loads, lines)
  assert list(first) == ["step", "time", "a", "b", "c"]
  assert (first["step"], first["a"], first["b"]) == (1, 3.0, 1.0)
  assert (second["step"], second["a"]) == (4, 0.5)


def test_line_is_in_the_file_after_a_flush(tmp_path):
  writer = MetricsWriter(tmp_path, restored_step=0)
  writer.write(1, {"a": 1.0})
  assert read_metrics(tmp_path) == []
  writer.flush()
  assert [r["a"] for r in read_metrics(tmp_path)] == [1.0]
  writer.flush()
  assert len(read_metrics(tmp_path)) == 1
  writer.close()


def test_line_is_complete_once_a_later_step_is_written(tmp_path):
  writer = MetricsWriter(tmp_path, restored_step=0)
  writer.write(1, {"a": 1.0})
  writer.write(2, {"a": 2.0})
  assert [r["step"] for r in read_metrics(tmp_path)] == [1]
  writer.close()


def test_lines_beyond_the_restored_step_are_dropped(write, tmp_path):
  write((1, {"a": 1.0}), (2, {"a": 2.0}), (3, {"a": 3.0}))
  write((3, {"a": 30.0}), restored_step=2)
  assert [(r["step"], r["a"]) for r in read_metrics(tmp_path)] == [
    (1, 1.0),
    (2, 2.0),
    (3, 30.0),
  ]
  write(restored_step=0)
  assert (tmp_path / METRICS_FILE).read_text() == ""


def test_torn_last_line_is_left_out_and_written_anew(write, tmp_path):
  write((1, {"a": 1.0}), (2, {"a": 2.0}))
  path = tmp_path / METRICS_FILE
  path.write_bytes(path.read_bytes()[:-3])
  assert [r["step"] for r in read_metrics(tmp_path)] == [1]
  write((2, {"a": 2.0}), restored_step=1)
  assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2]


def test_bad_line_in_the_middle_is_named(write, tmp_path):
  write((1, {"a": 1.0}), (3, {"a": 3.0}))
  path = tmp_path / METRICS_FILE
  first, second = path.read_text().splitlines(keepends=True)
  path.write_text(first + '{"step": 2, \n' + second)
  before = path.read_bytes()
  with pytest.raises(ValueError, match=r"metrics.jsonl, line 2, has no step"):
    MetricsWriter(tmp_path, restored_step=3)
  assert path.read_bytes() == before


@pytest.mark.parametrize(
  "line",
  [
    "[]",
    "3",
    "null",
    '{"step": 1}',
    '{"step": "1", "time": 0.5}',
    '{"step": [1], "time": 0.5}',
    '{"step": true, "time": 0.5}',
    '{"step": 1, "time": NaN}',
    '{"step": 1, "time": 0.5, "a": "much"}',
    '{"step": 1, "time": 1' + "0" * 400 + "}",
    "[" * 100_000,
  ],
)
def test_line_with_a_value_of_another_type_is_named(tmp_path, line):
  (tmp_path / METRICS_FILE).write_text(line + "\n")
  with pytest.raises(ValueError, match=r"metrics.jsonl, line 1, has no step"):
    read_metrics(tmp_path)


@pytest.mark.parametrize("place", [METRICS_FILE, "tensorboard"])
def test_full_disk_is_told_of_and_all_files_are_closed(
  tmp_path, monkeypatch, place
):
  writer = MetricsWriter(tmp_path, restored_step=0)

  def fail(*args, **kwargs):
    raise OSError(28, "No space left on device")

  closed = []
  with monkeypatch.context() as patch:
    if place == "tensorboard":  # Each value is handed over at once.
      patch.setattr(writer._events, "_write", fail)
      with pytest.raises(OSError, match=rf"No space left .*{place}"):
        writer.write(1, {"a": 1.0})
    else:
      patch.setattr(metrics.os, "fsync", fail)
      patch.setattr(writer._events, "close", lambda: closed.append(True))
      with pytest.raises(OSError, match=rf"No space left .*{place}"):
        writer.close()
      assert closed and writer._file.closed
  writer._events.close()
  writer._file.close()


def test_no_file_is_no_lines(tmp_path):
  assert read_metrics(tmp_path) == []


def test_time_goes_on_after_a_resume(tmp_path, clock):
  writer = MetricsWriter(tmp_path, restored_step=0)
  clock.now += 2.5
  writer.write(1, {"a": 1.0})
  writer.flush()
  clock.now += 10  # Work after the last line is lost, and not counted.
  writer.close()
  clock.now += 100  # Nor is the time between the starts.
  writer = MetricsWriter(tmp_path, restored_step=1)
  assert writer.seconds() == 2.5
  clock.now += 1
  writer.write(2, {"a": 1.0})
  writer.close()
  assert [r["time"] for r in read_metrics(tmp_path)] == [2.5, 3.5]


def test_tensorboard_holds_every_scalar(write, tmp_path):
  write((1, {"loss": 0.5, "accuracy": 0.25}), (2, {"loss": 0.125}))
  assert scalars(tmp_path) == [
    (1, "loss", 0.5),
    (1, "accuracy", 0.25),
    (2, "loss", 0.125),
  ]


def test_tensorboard_purges_what_a_resume_repeats(write, tmp_path):
  write((1, {"a": 1.0}), (2, {"a": 2.0}))
  starts = event_pb2.SessionLog.START
  assert [
    e.step for e in events(tmp_path) if e.session_log.status == starts
  ] == []
  write((2, {"a": 2.0}), restored_step=1)
  # TensorBoard drops what it read of this step and later ones.
  purges = [e.step for e in events(tmp_path) if e.session_log.status == starts]
  assert purges == [2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_error_names_step_and_every_bad_metric(value):
  bad = {"loss": value, "fine": 1.0, "norm": value}
  message = f"loss is {value}, norm is {value} at step 7;"
  with pytest.raises(NonFiniteMetricError, match=message):
    check_finite(7, bad)
  check_finite(7, {"loss": 1e38})


@pytest.fixture
def make_train_metrics(tmp_path):
  """Returns ``make(**options)``, which gives (hook, what it has written)."""
  made = []

  def make(**changes):
    writer = MetricsWriter(tmp_path, restored_step=0)
    options = {"log_every": 1, "batch_size": 8, "step": 0, "total_steps": 10}
    hook = TrainMetrics(writer, **(options | changes))
    made.extend([hook, writer])

    def written():
      writer.flush()
      return {
        r["step"]: {k: v for k, v in r.items() if k not in ("step", "time")}
        for r in read_metrics(tmp_path)
      }

    return hook, written

  yield make
  for each in made:
    each.close()


def test_metrics_of_a_step_are_written_one_step_late(make_train_metrics):
  hook, written = make_train_metrics()
  hook(1, None, {"loss": jnp.float32(0.5)})
  assert written() == {}
  hook(2, None, {"loss": jnp.float32(0.25)})
  assert written() == {1: {"train/loss": 0.5}}
  hook.flush()
  hook.flush()
  assert written() == {1: {"train/loss": 0.5}, 2: {"train/loss": 0.25}}


def test_only_multiples_of_log_every_are_written(make_train_metrics):
  hook, written = make_train_metrics(log_every=3)
  for step in range(1, 8):
    hook(step, None, {"loss": float(step)})
  hook.complete()
  assert written() == {3: {"train/loss": 3.0}, 6: {"train/loss": 6.0}}


def test_every_step_is_checked_even_if_it_is_not_written(make_train_metrics):
  hook, _ = make_train_metrics(log_every=100)
  hook(1, None, {"loss": jnp.float32("nan")})
  with pytest.raises(NonFiniteMetricError, match="train/loss is nan at step 1"):
    hook(2, None, {"loss": 1.0})


def test_nothing_is_written_of_a_step_whose_metrics_are_bad(make_train_metrics):
  hook, written = make_train_metrics()
  hook(1, None, {"loss": float("nan")})
  with pytest.raises(NonFiniteMetricError, match="train/loss"):
    hook.write(1, {"valid/loss": 1.0})
  with pytest.raises(NonFiniteMetricError, match="valid/loss is nan at step 2"):
    hook.write(2, {"valid/loss": float("nan")})
  assert written() == {}


def test_what_other_hooks_measure_joins_the_line_of_the_step(
  make_train_metrics,
):
  hook, written = make_train_metrics()
  hook(1, None, {"loss": 0.5})
  hook.write(1, {"valid/loss": 0.25})
  hook(2, None, {"loss": 1.0})
  assert written() == {1: {"train/loss": 0.5, "valid/loss": 0.25}}


def test_bar_shows_step_loss_accuracy_and_speed(
  make_train_metrics, clock, monkeypatch, capsys
):
  monkeypatch.setattr("tqdm.std.time", clock.time)
  hook, _ = make_train_metrics(step=4, batch_size=8)
  for step in (5, 6, 7):
    clock.now += 2
    hook(step, None, {"loss": 0.12345678, "accuracy": 0.5, "grad_norm": 9.0})
  hook.flush()
  hook.close()
  shown = capsys.readouterr().err.splitlines()[-1]
  assert "7/10" in shown
  assert "loss=0.1235" in shown
  assert "accuracy=0.5" in shown
  assert "examples/s=4" in shown  # 3 steps of 8 examples in 6 seconds.
  assert "grad_norm" not in shown
