"""Where compiled programs are kept."""

import pathlib

import jax
import pytest

from bitnet_jax.train import compilation


@pytest.fixture
def nothing_set():
  before = jax.config.jax_compilation_cache_dir
  seconds = jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update("jax_compilation_cache_dir", None)
  yield
  jax.config.update("jax_compilation_cache_dir", before)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


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
