"""Configures glibc malloc to retain freed memory between CPU training steps."""

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import sys

import jax

# Options of glibc's malloc: names in GLIBC_TUNABLES, numbers for mallopt, and
# values. One arena serves all threads, because a second one holds no array
# above 64 MiB, such as those of a step, and would map each again. In the one
# arena no array is mapped on its own, nothing below 2 GiB is given back to the
# system, and the arena grows by 64 MiB or more.
_OPTIONS = {
  "arena_max": (-8, 1),
  "mmap_max": (-4, 0),
  "trim_threshold": (-1, 2**31 - 1),
  "top_pad": (-2, 2**26),
}
# Variables by which a user has configured malloc already.
_CHOSEN = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_")


def tunables() -> str:
  """Returns the same options for the variable ``GLIBC_TUNABLES``."""
  return ":".join(
    f"glibc.malloc.{name}={value}" for name, (_, value) in _OPTIONS.items()
  )


@functools.cache
def keep_memory() -> bool:
  """Makes glibc retain freed memory, if CPUs are the only devices.

  XLA frees the arrays of a step at its end. By default glibc returns large ones
  to the system, so the next step faults them in again, page by page. This takes
  up to a third of the time of a step of large arrays. Steps of small arrays,
  and convolutions, take longer with this, as threads wait for one another to
  allocate. Call it before anything runs in JAX, whose threads by then have
  arenas of their own.

  Does nothing on other systems, with the variables ``GLIBC_TUNABLES``,
  ``MALLOC_...`` or ``LD_PRELOAD``, or with a JAX plugin for another platform.

  Returns:
    Whether memory is retained.
  """
  if any(name.startswith(_CHOSEN) for name in os.environ):
    return False
  if sys.platform != "linux" or not _has_cpus_only():
    return False
  with contextlib.suppress(AttributeError):  # Of other C libraries.
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*option) for option in _OPTIONS.values())
  return False


def _has_cpus_only() -> bool:
  """Whether JAX will find CPUs only; does not start it."""
  # pyrefly: ignore[missing-attribute]
  platforms = jax.config.jax_platforms
  if platforms:
    return platforms == "cpu"
  plugins = importlib.metadata.entry_points(group="jax_plugins")
  packages = ("jax_plugins", "libtpu")
  return not plugins and not any(map(importlib.util.find_spec, packages))
