"""Whose library of kernels is loaded, and whether it is whole."""

import os
import shutil
import stat

import pytest

from bitnet_jax.ops import native
from bitnet_jax.ops.cpu import library as cpu_library

STRANGER = 12345  # no user of any machine


@pytest.fixture
def library(tmp_path, monkeypatch):
  """A library that is ours and whole, though it holds no code."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr("ctypes.CDLL", _refuse_to_load)
  path = cpu_library.location()
  path.parent.mkdir(parents=True, mode=0o700)
  path.write_bytes(b"code" * 100)
  cpu_library.digest_file(path).write_text(cpu_library.digest(path))
  for part in (path, cpu_library.digest_file(path), path.parent):
    part.chmod(0o700)
  cpu_library.is_there.cache_clear()
  yield path
  cpu_library.is_there.cache_clear()


class LoadedError(Exception):
  """The library would have been loaded."""


def _refuse_to_load(path):
  raise LoadedError(path)


def test_a_whole_library_of_ours_is_loaded(library):
  with pytest.raises(LoadedError, match=str(library)):
    cpu_library.is_there()


def tear(library):
  library.write_bytes(library.read_bytes()[:-7])


def change(library):
  library.write_bytes(library.read_bytes()[::-1])


def lose_digest(library):
  cpu_library.digest_file(library).unlink()


def let_group_write(library):
  library.chmod(0o770)


def let_all_write_digest(library):
  cpu_library.digest_file(library).chmod(0o606)


def let_all_write_folder(library):
  library.parent.chmod(0o777)


def let_group_write_folder_above(library):
  library.parents[2].chmod(0o770)


def link_to_what_all_may_write(library):
  other = library.parents[2] / "elsewhere"
  other.mkdir()
  library.rename(other / library.name)
  other.chmod(0o777)
  library.symlink_to(other / library.name)


@pytest.mark.parametrize(
  ("fault", "message"),
  [
    (tear, "is not the file that"),
    (change, "is not the file that"),
    (lose_digest, "sha256"),
    (let_group_write, "other users may write"),
    (let_all_write_digest, "other users may write"),
    (let_all_write_folder, "other users may write"),
    (let_group_write_folder_above, "other users may write"),
    (link_to_what_all_may_write, "other users may write"),
  ],
)
def test_library_that_others_may_have_written_or_that_is_torn_is_not_loaded(
  library, fault, message, caplog
):
  fault(library)
  assert not cpu_library.is_there()
  (record,) = caplog.records
  assert message in record.getMessage()
  assert "bitnet_jax.ops.native" in record.getMessage()


@pytest.mark.parametrize("of_folder", [False, True])
def test_library_of_another_user_is_not_loaded(
  library, of_folder, monkeypatch, caplog
):
  if os.getuid() == 0:
    os.chown(library.parent if of_folder else library, STRANGER, -1)
  else:
    monkeypatch.setattr("os.getuid", lambda: STRANGER)
  assert not cpu_library.is_there()
  assert "belongs to another user" in caplog.text


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++")
def test_compiled_library_is_private_under_any_umask(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(cpu_library, "SOURCES", ("one.cc",))
  monkeypatch.setattr(cpu_library, "_HEADER", "one.cc")
  monkeypatch.setattr(cpu_library, "FOLDER", tmp_path)
  monkeypatch.setattr(cpu_library, "FLAGS", ("-shared", "-fPIC"))
  source = 'extern "C" bool bitnet_runs_here() { return true; }'
  (tmp_path / "one.cc").write_text(source)
  before = os.umask(0)
  try:
    path = native.build()
  finally:
    os.umask(before)
  for part in (path, path.parent, path.parents[1]):
    assert stat.S_IMODE(part.stat().st_mode) == 0o700
  recorded = cpu_library.digest_file(path)
  assert stat.S_IMODE(recorded.stat().st_mode) & 0o022 == 0
  assert recorded.read_text().strip() == cpu_library.digest(path)
