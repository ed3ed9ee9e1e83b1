"""The lock of a run folder, which also removes the files of failed starts."""

import fcntl
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from bitnet_jax.data.text.saved import COPIES
from bitnet_jax.files import write_atomically
from bitnet_jax.train.folder import bucket, seals

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.jsonl"
STARTS_FILE = "starts.jsonl"
FACTS_FILE = "data_facts.json"
EVENTS = "tensorboard"
_SHOWN = 5  # Names in a warning.
LOCK_FILE = ".lock"
_RECORD = "tokenizer_source.json"
VOCABULARY_FILES = {"tokenizer.json", "tokenizer.model", _RECORD}
# What a run writes once it has claimed its folder.
_FACTS = {FACTS_FILE, *COPIES}
# What a run may write before its first checkpoint. Anything else in its folder
# is not the run's, and is never removed.
_WRITTEN = {LOCK_FILE, CONFIG_FILE, METRICS_FILE, STARTS_FILE, EVENTS}
_WRITTEN |= {bucket.CHECKPOINTS, *VOCABULARY_FILES, *_FACTS}


class WorkdirError(ValueError):
  """A folder cannot be used for this run."""


class Lock:
  """Creates a folder, and locks out other processes until it is closed.

  A start that ends before its first metrics and its first checkpoint leaves
  nothing. Used as a context manager, this removes the files of such a start
  when it fails, and those of a killed one when the next one begins. In a folder
  with an earlier run, it restores ``config.json`` unless there is a new
  checkpoint.

  Attributes:
    folder: the locked folder.
    is_claimed: whether its ``config.json`` is that of the run.

  Raises:
    WorkdirError: for a file, a folder that cannot be written, or one in which
      another process is at work.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder, self.is_claimed = folder, False
    if folder.exists() and not folder.is_dir():
      raise WorkdirError(f"--workdir={folder} is not a folder")
    self._made = [p for p in (folder, *folder.parents) if not p.exists()]
    found = bucket.names(folder)
    try:
      folder.mkdir(parents=True, exist_ok=True)
      self._file = (folder / LOCK_FILE).open("a")
    except OSError as error:
      _remove_empty(self._made)
      raise WorkdirError(
        f"--workdir={folder} cannot be written: {error}"
      ) from error
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      self._file.close()
      raise WorkdirError(
        f"--workdir={folder} is in use by another process"
      ) from error
    # While this is open, no other folder gets the same inode.
    self._opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    self._begun = self._has_begun()
    if not self._begun:
      _warn_of_others(folder, found - _WRITTEN)
      found -= self._remove_leftovers(found)
    self._found = found
    self._steps = seals.steps(bucket.checkpoint_folder(folder))
    self._config = _content(folder / CONFIG_FILE)

  def __enter__(self) -> "Lock":
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    del kind, trace
    try:
      if isinstance(error, Exception):
        self.check()  # The error may come from a folder that is gone.
      if error is not None and self._is_there():
        self._undo()
    except OSError as second:  # The first error is the one to raise.
      logging.warning("%s could not be cleaned up: %s", self.folder, second)
    finally:
      self.close()

  def close(self) -> None:
    """Releases the lock."""
    self._file.close()
    os.close(self._opened)

  def check(self) -> None:
    """Checks that the folder is still the locked one.

    Raises:
      WorkdirError: if it, or its ``config.json``, was deleted or replaced.
    """
    missing = f"--workdir={self.folder}"
    if self._is_there():
      if not self.is_claimed or bucket.has(self.folder, CONFIG_FILE):
        return
      missing = f"{self.folder / CONFIG_FILE}"
    raise WorkdirError(
      f"{missing} was deleted or replaced during the run, so that nothing more"
      " can be saved there; what was trained since the last checkpoint is lost"
    )

  def _is_there(self) -> bool:
    try:
      found = self.folder.stat()
    except OSError:
      return False
    return os.path.samestat(found, os.fstat(self._opened))

  def _has_begun(self) -> bool:
    """Whether an earlier start left metrics, a checkpoint or a result."""
    checkpoints = bucket.checkpoint_folder(self.folder)
    return (
      bool(_content(self.folder / METRICS_FILE))
      or bucket.has(self.folder, RESULT_FILE)
      or (checkpoints.is_dir() and any(checkpoints.iterdir()))
    )

  def _undo(self) -> None:
    """Removes the files of a start that failed, or restores the config."""
    if seals.steps(bucket.checkpoint_folder(self.folder)) != self._steps:
      return
    path = self.folder / CONFIG_FILE
    if self._begun:
      if self._config is not None and _content(path) != self._config:
        write_atomically(path, self._config.decode())
        bucket.send(self.folder)
      for name in (bucket.names(self.folder) & _FACTS) - self._found:
        bucket.remove(self.folder, name)
    elif not _content(self.folder / METRICS_FILE):
      for name in (bucket.names(self.folder) & _WRITTEN) - self._found:
        bucket.remove(self.folder, name)
      _remove_empty(self._made)

  def _remove_leftovers(self, found: set[str]) -> set[str]:
    """Removes the files of a killed start, which refuse another config."""
    # The metrics hold no line, or the run would have begun.
    ours = set()
    if CONFIG_FILE in found:
      ours |= {CONFIG_FILE, METRICS_FILE, STARTS_FILE, *_FACTS}
    ours |= VOCABULARY_FILES if _RECORD in found else set()
    if ours & found:
      logging.warning(
        "--workdir=%s holds a run that ended before its first step; it is"
        " started again",
        self.folder,
      )
    for name in ours & found:
      bucket.remove(self.folder, name)
    return ours


def _warn_of_others(folder: pathlib.Path, names: set[str]) -> None:
  if names:
    shown = ", ".join(sorted(names)[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    logging.warning(
      "--workdir=%s already holds %s%s, which this run did not write; its files"
      " are added beside them",
      folder,
      shown,
      more,
    )


def _content(path: pathlib.Path) -> bytes | None:
  """Returns the content of a file; ``None`` if there is none."""
  return path.read_bytes() if path.is_file() else None


def _remove_empty(folders: Sequence[pathlib.Path]) -> None:
  """Removes folders, from the inner to the outer, as long as they are empty."""
  for folder in folders:
    try:
      folder.rmdir()
    except OSError:
      return
