"""Whose library of kernels is loaded, and whether it is whole."""

import os
import shutil
import stat

import pytest

from bitnet_jax.ops import native
from bitnet_jax.ops.cpu import compiling
from bitnet_jax.ops.cpu import library as cpu_library

STRANGER = 12345  # no user of any machine


@pytest.fixture
def library(tmp_path, monkeypatch):
  """A library that is ours and whole, though it holds no code."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setenv(cpu_library.VARIABLE, "1")
  monkeypatch.setattr(cpu_library, "packaged", lambda: tmp_path / "none")
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


needs_compiler = pytest.mark.skipif(
  not shutil.which("g++"), reason="there is no g++"
)
SOURCE = """
extern "C" bool bitnet_runs_here() { return true; }
extern "C" int bitnet_ffi_major() { return 0; }
extern "C" int bitnet_ffi_minor() { return MINOR; }
"""


@pytest.fixture
def sources(tmp_path, monkeypatch):
  """Short sources of a library, in a folder of their own."""
  folder = tmp_path / "package"
  folder.mkdir()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setenv(cpu_library.VARIABLE, "1")
  monkeypatch.setattr(compiling, "SOURCES", ("one.cc",))
  monkeypatch.setattr(compiling, "HEADERS", ())
  monkeypatch.setattr(compiling, "FOLDER", folder)
  monkeypatch.setattr(compiling, "FLAGS", ("-shared", "-fPIC"))
  monkeypatch.setattr(cpu_library, "TARGETS", ())
  (folder / "one.cc").write_text(SOURCE.replace("MINOR", "1"))
  cpu_library.is_there.cache_clear()
  yield folder
  cpu_library.is_there.cache_clear()


@needs_compiler
def test_compiled_library_is_private_under_any_umask(sources):
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


@needs_compiler
def test_library_of_the_package_is_loaded_unless_it_is_of_other_sources(
  sources,
):
  assert not cpu_library.is_there()
  compiling.compile_to(cpu_library.packaged(), sources)
  cpu_library.is_there.cache_clear()
  assert cpu_library.is_there()
  (sources / "one.cc").write_text("// Changed.")
  cpu_library.is_there.cache_clear()
  assert not cpu_library.is_there()


@needs_compiler
def test_variable_leaves_kernels_out(sources, monkeypatch):
  compiling.compile_to(cpu_library.packaged(), sources)
  monkeypatch.setenv(cpu_library.VARIABLE, "0")
  assert not cpu_library.is_there()
  monkeypatch.setenv(cpu_library.VARIABLE, "no")
  cpu_library.is_there.cache_clear()
  with pytest.raises(ValueError, match="BITNET_JAX_NATIVE is 'no'; it must be"):
    cpu_library.is_there()


@needs_compiler
def test_library_of_a_newer_jaxlib_is_not_loaded(sources, caplog):
  (sources / "one.cc").write_text(SOURCE.replace("MINOR", "1000"))
  compiling.compile_to(cpu_library.packaged(), sources)
  assert not cpu_library.is_there()
  assert "were compiled for a newer jaxlib" in caplog.text
  assert "bitnet_jax.ops.native" in caplog.text


def test_mistakes_of_compilers_are_named(sources, monkeypatch, tmp_path):
  monkeypatch.setenv("CXX", "no-such-compiler -O1")
  with pytest.raises(compiling.NativeError, match="compiler 'no-such-comp"):
    native.build()
  monkeypatch.setenv("CXX", "false")
  with pytest.raises(compiling.NativeError, match="false failed: status 1"):
    native.build()
  monkeypatch.setattr("platform.machine", lambda: "riscv64")
  with pytest.raises(compiling.NativeError, match="not for riscv64"):
    native.build()
