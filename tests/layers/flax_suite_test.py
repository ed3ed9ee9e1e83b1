"""Flax's own tests of its layers pass with ours in their place."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

FILES = (
  "tests/linen/linen_linear_test.py",
  "tests/nnx/nn/linear_test.py",
  "tests/nnx/nn/conv_test.py",
)
# Layers of the same files that we have no twins of.
OTHERS = ("transpose", "embed", "local", "einsum")


@pytest.mark.slow
def test_flax_tests_its_layers_with_ours():
  checkout = os.environ.get("FLAX_CHECKOUT")
  if not checkout:
    pytest.skip("FLAX_CHECKOUT names no checkout of github.com/google/flax")
  command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts="]
  command += ["-p", "tests.layers.flax_twins", "-p", "no:cacheprovider"]
  command += ["--import-mode=importlib", f"--rootdir={checkout}"]
  command += ["-k", " and ".join(f"not {name}" for name in OTHERS), *FILES]
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run(
    command,
    cwd=checkout,
    env={**os.environ, "PYTHONPATH": str(root)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout[-5000:]
  (passed,) = re.findall(r"(\d+) passed", done.stdout)
  assert int(passed) > 500
