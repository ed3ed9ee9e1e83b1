"""Where compiled programs are kept."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from bitnet_jax.train.devices import compilation


@pytest.fixture
def nothing_set():
  before = jax.config.jax_compilation_cache_dir
  seconds = jax.config.jax_persistent_cache_min_compile_time_secs
  size = jax.config.jax_compilation_cache_max_size
  jax.config.update("jax_compilation_cache_dir", None)
  yield
  jax.config.update("jax_compilation_cache_dir", before)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
  jax.config.update("jax_compilation_cache_max_size", size)


def test_cache_is_on_by_default(nothing_set, monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  compilation.keep_compiled()
  folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
  assert folder == tmp_path / "bitnet_jax" / "compiled"


def test_folder_that_was_chosen_is_kept(nothing_set, tmp_path):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path))
  compilation.keep_compiled()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_folder_that_others_can_write_is_not_used(
  nothing_set, monkeypatch, tmp_path, caplog
):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  tmp_path.chmod(0o777)
  compilation.keep_compiled()
  assert jax.config.jax_compilation_cache_dir is None
  assert f"other users may write to {tmp_path}" in caplog.text


def test_folder_is_private(nothing_set, monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  (tmp_path / "bitnet_jax" / "compiled").mkdir(parents=True)
  compilation.keep_compiled()
  for folder in (tmp_path / "bitnet_jax", tmp_path / "bitnet_jax" / "compiled"):
    assert folder.stat().st_mode & 0o777 == 0o700


PROGRAM = """
import sys
import jax, jax.numpy as jnp
from bitnet_jax.train.devices import compilation

compilation.MAX_BYTES, compilation.MIN_SECONDS = 40_000, 0
compilation.keep_compiled()
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_raise_persistent_cache_errors", True)
for i in range(6):
  jax.jit(lambda x: jnp.sin(x) + i)(jnp.ones(3)).block_until_ready()
"""


@pytest.mark.slow
def test_programs_take_no_more_than_the_limit(tmp_path):
  folder = tmp_path / "bitnet_jax" / "compiled"
  folder.mkdir(parents=True)
  # Kept without a limit, and without a note of their use.
  (folder / "old-cache").write_bytes(bytes(30_000))
  env = {n: v for n, v in os.environ.items() if "COMPILATION_CACHE" not in n}
  env |= {"XDG_CACHE_HOME": str(tmp_path)}
  env["PYTHONPATH"] = os.pathsep.join(sys.path)
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  programs = list(folder.glob("*-cache"))
  assert programs
  assert not (folder / "old-cache").exists()
  assert sum(path.stat().st_size for path in programs) <= 40_000


def test_nothing_is_kept_without_a_way_to_limit_it(
  nothing_set, monkeypatch, caplog
):
  monkeypatch.setitem(sys.modules, "filelock", None)
  compilation.keep_compiled()
  assert jax.config.jax_compilation_cache_dir is None
  assert "filelock: pip install 'bitnet-jax[train]'" in caplog.text
