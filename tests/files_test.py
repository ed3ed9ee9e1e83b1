"""Files that are whole or not there."""

import pathlib

import pytest

from bitnet_jax.files import write_atomically


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path: pathlib.Path):
  path = tmp_path / "file"
  path.write_text("old")
  write_atomically(path, "new")
  assert path.read_text() == "new"
  assert list(tmp_path.iterdir()) == [path]


def test_failed_atomic_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "file"
  path.write_text("old")

  def fail(_):
    raise OSError("disk full")

  monkeypatch.setattr("os.fsync", fail)
  with pytest.raises(OSError, match="disk full"):
    write_atomically(path, "new")
  assert path.read_text() == "old"
