import os
import platform
import subprocess
import sys

import pytest

from bitnet_jax.train.devices.allocation import tunables

pytestmark = pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc", reason="is about glibc"
)

# Prints what was said, and the page faults of one array and of the next, in a
# thread that is not the first, as those of XLA.
PROGRAM = """
import resource, sys, threading
import numpy as np
said = None
if "keep" in sys.argv:
  from bitnet_jax.train.devices.allocation import keep_memory
  said = keep_memory()
def faults():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  np.ones(2**24)  # 128 MiB.
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
thread = threading.Thread(target=lambda: print(said, faults(), faults()))
thread.start()
thread.join()
"""


def run(*arguments, **variables):
  """Returns whether memory is said to be kept, and whether it is."""
  chosen = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_", "JAX_PLATFORMS")
  kept = {k: v for k, v in os.environ.items() if not k.startswith(chosen)}
  found = subprocess.run(
    [sys.executable, "-c", PROGRAM, *arguments],
    env={**kept, "NUMPY_MADVISE_HUGEPAGE": "0", **variables},
    check=True,
    capture_output=True,
    text=True,
  )
  said, first, second = found.stdout.split()
  assert int(first) > 2**13
  return said, int(second) < int(first) / 10


def test_memory_is_kept_for_the_next_array():
  assert run("keep", JAX_PLATFORMS="cpu") == ("True", True)


def test_tunables_do_the_same():
  assert run() == ("None", False)
  assert run(GLIBC_TUNABLES=tunables()) == ("None", True)


@pytest.mark.parametrize(
  "variables",
  [
    {"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "8"},
    {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.malloc.arena_test=2"},
    {"JAX_PLATFORMS": "cuda,cpu"},
  ],
)
def test_what_was_chosen_and_other_platforms_are_left_alone(variables):
  assert run("keep", **variables) == ("False", False)
