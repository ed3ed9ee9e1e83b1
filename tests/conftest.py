"""Settings of all tests, and the fixtures that they share."""

import atexit
import inspect
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# Inherited by started processes.
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
  ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests of native kernels ask for them: see ``compiled``.
os.environ["BITNET_JAX_NATIVE"] = "0"
# What one test compiled the others find, also those of other processes.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  _compiled = tempfile.mkdtemp(prefix="bitnet_jax-tests-")
  atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import pytest

pytest_plugins = ["tests.kernels"]
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiling is most of what tests do. What speaks of bits, HLO or speed must
# not rely on this: see ``optimized``.
jax.config.update("jax_disable_most_optimizations", True)
COMPILES_FAST = ""
if jax.__version_info__[:2] == (0, 10):  # Other versions may lack the flag.
  COMPILES_FAST = "--xla_cpu_use_fusion_emitters=false"
_inherited = os.environ["XLA_FLAGS"]
os.environ["XLA_FLAGS"] = f"{_inherited} {COMPILES_FAST}"
jax.devices()  # Reads the flags; started processes optimize.
os.environ["XLA_FLAGS"] = _inherited

_CALL = """
import json, runpy, sys
path, name = sys.argv[1:]
print(json.dumps(runpy.run_path(path)[name]()))
"""


@pytest.fixture(scope="session")
def optimized():
  """Returns ``run(function)``, which calls it in a process that optimizes.

  The function stands at the top of a test module, takes no arguments and
  returns what JSON can hold; a process may run many cases.
  """

  def run(function):
    command = [sys.executable, "-c", _CALL]
    command += [inspect.getfile(function), function.__name__]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])

  return run


@pytest.fixture
def strict_dtypes():
  """No implicit promotion between dtypes."""
  with jax.numpy_dtype_promotion("strict"):
    yield


@pytest.fixture
def data_dir():
  """Folder of real data sets, where the environment names one."""
  folder = os.environ.get("BITNET_JAX_DATA")
  if not folder:
    pytest.skip("BITNET_JAX_DATA names no folder of data sets")
  return pathlib.Path(folder)
