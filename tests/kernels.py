"""The optional kernels, compiled for the tests that ask for them."""

import os
import shutil

import filelock
import pytest

from bitnet_jax.ops import native
from bitnet_jax.ops.cpu import library

COMPILER = shutil.which("g++")


@pytest.fixture(scope="session")
def cache_with_kernels(tmp_path_factory):
  """Compiles them; where they cannot run, their tests have nothing to say."""
  folder = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    folder = folder.parent  # For all workers.
  folder = folder / "kernels"
  with (
    pytest.MonkeyPatch.context() as patch,
    filelock.FileLock(f"{folder}.lock"),
  ):
    patch.setenv("XDG_CACHE_HOME", str(folder))
    patch.setenv(library.VARIABLE, "1")
    try:
      if not library.location().exists():
        native.build()
    except native.NativeError as error:
      if COMPILER and "lacks" not in str(error):
        raise
      pytest.skip(str(error))
    finally:
      library.is_there.cache_clear()
  return folder


@pytest.fixture
def compiled(cache_with_kernels, monkeypatch):
  """A cache folder with the kernels."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(cache_with_kernels))
  monkeypatch.setenv(library.VARIABLE, "1")
  library.is_there.cache_clear()
  assert library.is_there()
  yield
  library.is_there.cache_clear()


@pytest.fixture
def one_device(monkeypatch):
  """Programs are traced as on a CPU alone, where they may take kernels."""
  monkeypatch.setattr("jax.device_count", lambda: 1)
