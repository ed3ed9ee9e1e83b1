"""Keeps compiled programs from one start to the next."""

import os
import pathlib

import jax

# Programs that compile faster than this, in seconds, are compiled again.
MIN_SECONDS = 0.2


def cache_folder() -> pathlib.Path:
  """Returns where compiled programs are kept unless something else is set."""
  root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(root) / "bitnet_jax" / "compiled"


def keep_compiled() -> None:
  """Turns JAX's compilation cache on, if nothing has been said about it.

  ``JAX_COMPILATION_CACHE_DIR`` puts it elsewhere, and
  ``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off, as for any JAX program.
  """
  # pyrefly: ignore[missing-attribute]
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
