"""Has the memory of steps on CPU kept from one step to the next."""

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import sys

import jax

# Options of glibc's malloc: their names in GLIBC_TUNABLES, their numbers for
# mallopt, and values. One arena serves all threads, since no other can hold an
# array above 64 MiB, as a step's is: it would get a mapping of its own each
# time. In the one no array has a mapping of its own, nothing below 2 GiB is
# given back, and it grows by 64 MiB or more.
_OPTIONS = {
  "arena_max": (-8, 1),
  "mmap_max": (-4, 0),
  "trim_threshold": (-1, 2**31 - 1),
  "top_pad": (-2, 2**26),
}
# By these somebody has said already how memory is to be got.
_CHOSEN = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_")


def tunables() -> str:
  """Returns the same for the variable ``GLIBC_TUNABLES`` of any program."""
  return ":".join(
    f"glibc.malloc.{name}={value}" for name, (_, value) in _OPTIONS.items()
  )


@functools.cache
def keep_memory() -> bool:
  """Has glibc keep what is freed, if JAX has CPUs alone.

  XLA frees the arrays of a step at its end. By default glibc gives large ones
  back to the system, so that each step gets them anew, page by page, which
  takes up to a third of its time. Threads then wait for one another to get
  memory, so that steps of small arrays, and convolutions, take longer. To be
  called before anything runs in JAX, whose threads otherwise have memory of
  their own by then.

  Nothing is done on other systems, if ``GLIBC_TUNABLES``, ``MALLOC_...`` or
  ``LD_PRELOAD`` are set, or if JAX has a plugin for another platform.

  Returns:
    Whether it is so now.
  """
  if any(name.startswith(_CHOSEN) for name in os.environ):
    return False
  if sys.platform != "linux" or not _cpu_alone():
    return False
  with contextlib.suppress(AttributeError):  # Of other C libraries.
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*option) for option in _OPTIONS.values())
  return False


def _cpu_alone() -> bool:
  """Returns whether CPUs are all that JAX will find, without starting it."""
  # pyrefly: ignore[missing-attribute]
  platforms = jax.config.jax_platforms
  if platforms:
    return platforms == "cpu"
  plugins = importlib.metadata.entry_points(group="jax_plugins")
  packages = ("jax_plugins", "libtpu")
  return not plugins and not any(map(importlib.util.find_spec, packages))
