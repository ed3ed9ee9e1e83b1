import io
import sys

import pytest

from bitnet_jax.data import progress
from bitnet_jax.train import console


class Terminal(io.StringIO):
  """Standard error on a terminal."""

  def isatty(self):
    return True


@pytest.fixture
def terminal(monkeypatch):
  """Returns a function that makes standard error a terminal, and returns it."""

  def make():
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr

  monkeypatch.setattr(progress, "_DELAY", 0)
  return make


def go_through():
  items = progress.bar(iter("abc"), what="reading letters", total=3)
  assert [*items] == ["a", "b", "c"]


def test_bar_is_shown_on_a_terminal(terminal):
  shown = terminal()
  go_through()
  assert "reading letters" in shown.getvalue()


def test_bar_is_hidden_where_programs_are_quiet(terminal):
  shown = terminal()
  for mode in ("quiet", "json"):
    with console.showing(mode):
      go_through()
  assert not shown.getvalue()
  go_through()
  assert shown.getvalue()


def test_bar_is_not_shown_in_files(capsys):
  go_through()
  assert not capsys.readouterr().err
