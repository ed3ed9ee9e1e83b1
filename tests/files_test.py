"""Atomic writes, and bounded reads."""

import os
import pathlib

import pytest

from bitnet_jax import files
from bitnet_jax.files import read_json, write_atomically


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


def make_pipe(path):
  os.mkfifo(path)


def make_folder(path):
  path.mkdir()


def link_to_device(path):
  path.symlink_to("/dev/zero")


def make_sparse(path):
  with path.open("wb") as file:
    file.truncate(2**40)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (make_pipe, "is a pipe or device"),
    (make_folder, "is a folder"),
    (link_to_device, "is a pipe or device"),
    (make_sparse, "has more than"),
  ],
)
def test_what_is_no_file_of_json_is_named_at_once(tmp_path, make, message):
  path = tmp_path / "config.json"
  make(path)
  with pytest.raises(ValueError, match=rf"config\.json {message}"):
    read_json(path)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("[" * 200_000, "recursion"),
    ('{"a": ' + "1" * 5000 + "}", "digits"),
    ('{"a": 1, "a": 2}', "'a' appears twice"),
    ("{" + ",".join(f'"{i}":[]' for i in range(90_000)) + "}", "more than 25"),
    ("[1]", "no object"),
    ("{", "damaged"),
    ('"\\ud800"', "no object"),
  ],
)
def test_json_that_cannot_be_read_is_named(
  tmp_path, monkeypatch, content, message
):
  monkeypatch.setattr(files, "MOST_VALUES", 250_000)
  path = tmp_path / "config.json"
  path.write_text(content)
  with pytest.raises(ValueError, match=rf"config\.json .*{message}"):
    read_json(path)
