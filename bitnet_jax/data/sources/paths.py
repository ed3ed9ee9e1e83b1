"""Finds files by path or glob, and says what is there instead."""

import contextlib
import glob
import os
import pathlib
import re

from bitnet_jax import choices
from bitnet_jax.data.sources.tables import listed

_SIGNS = re.compile(r"[*?\[]")  # of a glob


def is_glob(path: str) -> bool:
  """Whether a path has `*`, `?` or `[`, and no file is called like this."""
  return bool(_SIGNS.search(path)) and not _expanded(path).exists()


def find_files(path: str) -> list[pathlib.Path]:
  """Returns the absolute paths of a file, or of the files that a glob matches.

  `**` matches any folders. Hidden files are left out, and the others sorted.

  Raises:
    FileNotFoundError: there is none; see `missing`.
    ValueError: the path is a folder.
  """
  found = _matches(path)
  if not found:
    raise missing(path)
  return found


def is_there(path: str) -> bool:
  """Whether `find_files` finds some."""
  return bool(_matches(path))


def missing(path: str) -> OSError | ValueError:
  """Returns the error for a file that is not there; names what is near."""
  whole = _expanded(path)
  if whole.is_dir():
    return ValueError(f"{whole} is a folder, not a file{_holding(whole)}")
  gone = whole
  while not gone.parent.is_dir() and gone != gone.parent:
    gone = gone.parent
  if _SIGNS.search(gone.name):
    return FileNotFoundError(f"no file matches {whole}{_holding(gone.parent)}")
  near = choices.nearest(gone.name, _names(gone.parent))
  if gone == whole:
    near = near or _holding(gone.parent)
    return FileNotFoundError(f"there is no file {whole}{near}")
  return FileNotFoundError(
    f"there is no file {whole}: there is no folder {gone}{near}"
  )


def _matches(path):
  if not is_glob(path):
    file = _expanded(path)
    return [file] if file.is_file() else []
  whole = _expanded(path)
  base = pathlib.Path(whole.anchor)
  parts = list(whole.parts[1:])
  while (base / parts[0]).exists():  # Its name may have signs of a glob.
    base /= parts.pop(0)
  names = glob.glob(os.path.join(*parts), root_dir=base, recursive=True)
  return sorted(file for n in {*names} if (file := base / n).is_file())


def _expanded(path) -> pathlib.Path:
  return pathlib.Path(path).expanduser().absolute()


def _names(folder) -> list[str]:
  """Returns the names in a folder that are not hidden, sorted."""
  with contextlib.suppress(OSError):
    names = os.listdir(folder)
    return sorted(name for name in names if not name.startswith("."))
  return []


def _holding(folder) -> str:
  """Returns what a folder holds, for a message."""
  return f"; {folder} holds {listed(_names(folder)) or 'nothing'}"
