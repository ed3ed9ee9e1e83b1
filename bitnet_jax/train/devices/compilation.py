"""The persistent cache of compiled programs."""

import contextlib
import pathlib

import jax
from absl import logging

from bitnet_jax.extras import MissingExtraError, need
from bitnet_jax.files import cache_folder, make_private

# Seconds; programs that compile faster are not cached.
MIN_SECONDS = 0.2
# Bytes of all cached programs; the least recently used ones are removed.
MAX_BYTES = 2 * 2**30


def keep_compiled() -> None:
  """Turns JAX's compilation cache on, unless it is configured already.

  ``JAX_COMPILATION_CACHE_DIR`` sets its folder, and
  ``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off, as for any JAX program.
  It holds ``JAX_COMPILATION_CACHE_MAX_SIZE`` bytes, by default ``MAX_BYTES``,
  and needs the package filelock for that. Its content is executed, so it stays
  off if other users can write to the folder.
  """
  # pyrefly: ignore[missing-attribute]
  if jax.config.jax_compilation_cache_dir is not None:
    return
  folder = cache_folder() / "compiled"
  try:
    need("the limit of the cache", "filelock", extra="train")
    make_private(folder)
    _date_programs(folder)
  except (MissingExtraError, OSError) as error:
    logging.warning("Compiled programs are not kept: %s", error)
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
  # pyrefly: ignore[missing-attribute]
  if jax.config.jax_compilation_cache_max_size == -1:
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)


def _date_programs(folder: pathlib.Path) -> None:
  """Adds the time of last use to programs that were cached without a limit.

  With a limit, JAX fails for programs without this time.
  """
  for path in folder.glob("*-cache"):
    note = path.with_name(f"{path.name.removesuffix('-cache')}-atime")
    # Another process may remove it just now.
    with contextlib.suppress(FileNotFoundError):
      if not note.exists():
        used = path.stat().st_mtime_ns
        note.write_bytes(used.to_bytes(8, "little"))
