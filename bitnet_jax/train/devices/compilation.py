"""Keeps compiled programs from one start to the next."""

import contextlib
import pathlib

import jax
from absl import logging

from bitnet_jax.extras import MissingExtraError, need
from bitnet_jax.files import cache_folder, make_private

# Programs that compile faster than this, in seconds, are compiled again.
MIN_SECONDS = 0.2
# Bytes of all programs that are kept; those not used for longest are removed.
MAX_BYTES = 2 * 2**30


def keep_compiled() -> None:
  """Turns JAX's compilation cache on, if nothing has been said about it.

  ``JAX_COMPILATION_CACHE_DIR`` puts it elsewhere, and
  ``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off, as for any JAX program.
  It holds ``JAX_COMPILATION_CACHE_MAX_SIZE`` bytes, by default ``MAX_BYTES``,
  and needs the package filelock for that. What is in the cache is executed, so
  it stays off where other users can write to the folder.
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
  """Notes when programs were used last that were kept without a limit.

  JAX notes it if it limits the size, and then fails for those without a note.
  """
  for path in folder.glob("*-cache"):
    note = path.with_name(f"{path.name.removesuffix('-cache')}-atime")
    # Another process may remove it just now.
    with contextlib.suppress(FileNotFoundError):
      if not note.exists():
        used = path.stat().st_mtime_ns
        note.write_bytes(used.to_bytes(8, "little"))
