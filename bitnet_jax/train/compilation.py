"""Keeps compiled programs from one start to the next."""

import jax
from absl import logging

from bitnet_jax.files import cache_folder, make_private

# Programs that compile faster than this, in seconds, are compiled again.
MIN_SECONDS = 0.2


def keep_compiled() -> None:
  """Turns JAX's compilation cache on, if nothing has been said about it.

  ``JAX_COMPILATION_CACHE_DIR`` puts it elsewhere, and
  ``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off, as for any JAX program.
  What is in the cache is executed, so it stays off where other users can write
  to the folder.
  """
  # pyrefly: ignore[missing-attribute]
  if jax.config.jax_compilation_cache_dir is None:
    folder = cache_folder() / "compiled"
    try:
      make_private(folder)
    except OSError as error:
      logging.warning("Compiled programs are not kept: %s", error)
      return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
