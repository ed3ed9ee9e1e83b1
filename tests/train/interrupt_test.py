"""Signals: when they act, and what is said and left then."""

import signal
import threading

import pytest

from bitnet_jax.train import hooks, interrupt, runner
from tests.train.conftest import lines_without_time

LENGTH = {"total_steps": 4, "eval_every": 4, "statistics_every": 0}


def signal_at(monkeypatch, place, name, count=1):
  """Has the first call of a function receive signals before it does its work.

  Args:
    monkeypatch: undoes it.
    place: module or class.
    name: of the function.
    count: number of signals.
  """
  real = getattr(place, name)

  def call(*args, **kwargs):
    monkeypatch.setattr(place, name, real)
    for _ in range(count):
      signal.raise_signal(signal.SIGTERM)
    return real(*args, **kwargs)

  monkeypatch.setattr(place, name, call)


@pytest.mark.parametrize(
  ("place", "name"),
  [
    (runner, "build"),
    (runner.Experiment, "init"),
    pytest.param(runner, "train", marks=pytest.mark.slow),
  ],
)
def test_signal_before_the_first_step_leaves_nothing(
  run, monkeypatch, tmp_path, place, name
):
  signal_at(monkeypatch, place, name)
  with pytest.raises(
    runner.Interrupted, match="before the first step; nothing is saved yet"
  ):
    run(**LENGTH)
  assert not (tmp_path / "run").exists()


def test_signal_in_the_last_evaluation_ends_it_and_it_is_made_later(
  run, monkeypatch, tmp_path
):
  signal_at(monkeypatch, runner.Experiment, "score")
  with pytest.raises(
    runner.Interrupted,
    match=r"SIGTERM in the evaluation after step 4; the checkpoint is saved",
  ):
    run(**LENGTH)
  assert not (tmp_path / "run" / "result.json").exists()
  before = lines_without_time(tmp_path / "run")
  result, folder = run(**LENGTH)
  assert result["step"] == 4
  assert lines_without_time(folder) == before


def test_signal_at_the_last_step_leaves_the_evaluation_for_later(
  run, monkeypatch, tmp_path
):
  signal_at(monkeypatch, hooks.Saving, "save")
  with pytest.raises(
    runner.Interrupted, match="in the evaluation after step 4"
  ):
    run(**LENGTH)
  assert (tmp_path / "run" / "checkpoints" / "000004" / "seal.json").exists()


def test_second_signal_acts_at_once():
  closed = []
  with (
    pytest.raises(runner.Interrupted, match="SIGINT at once") as caught,
    interrupt.Interrupt() as interrupted,
    interrupted.deferred(),
    hooks.closing(Part(closed)),
  ):
    signal.raise_signal(signal.SIGTERM)
    interrupted.check()  # The first one is only remembered.
    assert interrupted.asked()
    signal.raise_signal(signal.SIGINT)
  assert caught.value.at_once
  assert not closed  # Which may wait for a checkpoint.


def test_handlers_are_put_back_and_other_threads_have_none():
  before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  with interrupt.Interrupt():
    assert signal.getsignal(signal.SIGTERM) != before[1]
  assert before == [
    signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)
  ]
  asked = []

  def work():
    with interrupt.Interrupt() as there:
      asked.append(there.asked())

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert asked == [False]


class Part:
  """Notes that it is closed, and may fail then."""

  def __init__(self, closed, error=None):
    self._closed, self._error = closed, error

  def close(self):
    self._closed.append(self)
    if self._error is not None:
      raise self._error


def test_first_error_is_raised_when_all_parts_are_closed(caplog):
  closed = []
  parts = [
    Part(closed, OSError("no space for the checkpoint")),
    Part(closed),
    Part(closed, OSError("no space for events")),
  ]
  with pytest.raises(ValueError, match="loss is nan"), hooks.closing(*parts):
    raise ValueError("loss is nan")
  assert closed == parts
  assert "no space for the checkpoint" in caplog.text
  assert "no space for events" in caplog.text
  closed.clear()
  with (
    pytest.raises(OSError, match="for the checkpoint"),
    hooks.closing(*parts),
  ):
    pass
  assert closed == parts


def test_inner_interrupt_tells_the_one_around_it():
  with interrupt.Interrupt() as outer:
    with interrupt.Interrupt():
      pass
    assert not outer.asked()
    with interrupt.Interrupt():
      with pytest.raises(interrupt.Interrupted):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(interrupt.Interrupted):
      outer.check()
  assert outer.received == signal.SIGTERM
