"""Folders of runs in Google Cloud Storage: ``gs://bucket/folder``.

A process works in a folder of its machine with what is small: config, metrics,
events, vocabulary. What of it a run needs is fetched when it starts, and what
has changed is copied back whenever it is made durable. Checkpoints, which may
lie on many machines in parts, are written to the bucket itself. No lock keeps a
second run out of the same folder.
"""

import atexit
import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from etils import epath

from bitnet_jax.files import (
  PathLike,
  local_path,
  read_bytes,
  write_atomically,
)

SCHEME = "gs://"
CHECKPOINTS = "checkpoints"
_PARTIAL = ".partial"


@dataclasses.dataclass(frozen=True)
class _Remote:
  """Where a folder comes from, and what of it is there already.

  Attributes:
    root: the folder in the bucket.
    sent: size and time of change of each file, by its path.
  """

  root: epath.Path
  sent: dict[str, tuple[int, int]]


_remotes: dict[pathlib.Path, _Remote] = {}
_scratches: list[pathlib.Path] = []


@atexit.register
def leave() -> None:
  """Removes the folders that stand for addresses on this machine."""
  for scratch in _scratches:
    shutil.rmtree(scratch, ignore_errors=True)


def place(address: PathLike) -> pathlib.Path:
  """Returns the folder to work in.

  Args:
    address: a path, or an address in a bucket, whose files are fetched into a
      folder that lasts as long as this process.

  Raises:
    ImportError: if what reads buckets is not installed.
    OSError: if the bucket cannot be read.
    ValueError: for an address of another kind, or one without a folder.
  """
  if not isinstance(address, str) or not _is_address(address):
    return local_path(address)
  bucket, _, name = address.removeprefix(SCHEME).strip("/").partition("/")
  inside = bool(bucket and name) and ".." not in name.split("/")
  if not address.startswith(SCHEME) or not inside:
    raise ValueError(f"{address!r} is neither a path nor gs://BUCKET/FOLDER")
  _check_installed(address)
  scratch = pathlib.Path(tempfile.mkdtemp(prefix="bitnet_jax-"))
  _scratches.append(scratch)
  folder = scratch / bucket / name
  folder.mkdir(parents=True)
  _remotes[folder] = _Remote(epath.Path(f"{SCHEME}{bucket}/{name}"), {})
  fetch(folder)
  return folder


def _is_address(name: str) -> bool:
  return "://" in name or name.startswith("gs:")


def checkpoint_folder(folder: pathlib.Path) -> epath.Path:
  """Returns where the checkpoints of a run are."""
  remote = _remotes.get(folder)
  return (remote.root if remote else epath.Path(folder)) / CHECKPOINTS


def fetch(folder: pathlib.Path) -> None:
  """Copies the files of a run from its bucket, if it is in one.

  Those of folders in it are events, which are only added to, and checkpoints.

  Raises:
    OSError: if the bucket cannot be read, or if a file has the name.
  """
  remote = _remotes.get(folder)
  if remote is None:
    return
  with speaking_of(remote.root):
    if not remote.root.exists():
      return
    if not remote.root.is_dir():
      raise NotADirectoryError("it is a file")
    for source in files(remote.root, deep=False):
      target = folder / source.name
      target.write_bytes(source.read_bytes())
      remote.sent[source.name] = _version(target)


def send(folder: pathlib.Path) -> None:
  """Copies what has changed in a run's folder to its bucket, if it is in one.

  Raises:
    OSError: if the bucket cannot be written.
  """
  remote = _remotes.get(folder)
  if remote is None:
    return
  with speaking_of(remote.root):
    for source in files(epath.Path(folder)):
      name = source.relative_to(folder).as_posix()
      version = _version(source)
      hidden = name.startswith(".") or name.endswith(_PARTIAL)
      if hidden or remote.sent.get(name) == version:
        continue
      (remote.root / name).write_bytes(source.read_bytes())
      remote.sent[name] = version


def names(folder: pathlib.Path) -> set[str]:
  """Returns the names of what is in a run's folder, also in its bucket."""
  remote = _remotes.get(folder)
  found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
  if remote is not None:
    with speaking_of(remote.root):
      if remote.root.is_dir():
        found |= {path.name for path in remote.root.iterdir()}
  return found


def has(folder: pathlib.Path, name: str) -> bool:
  """Whether a run's folder holds a file; if it is in a bucket, there."""
  remote = _remotes.get(folder)
  if remote is None:
    return (folder / name).is_file()
  with speaking_of(remote.root):
    return (remote.root / name).exists()


def remove(folder: pathlib.Path, name: str) -> None:
  """Removes a file or a folder of a run, also from its bucket.

  Raises:
    OSError: if it cannot be removed.
  """
  remote = _remotes.get(folder)
  places = [epath.Path(folder / name)]
  if remote is not None:
    places.append(remote.root / name)
    for sent in [n for n in remote.sent if n.split("/")[0] == name]:
      del remote.sent[sent]
  for path in places:
    with speaking_of(path):
      if path.is_dir():
        path.rmtree()
      else:
        path.unlink(missing_ok=True)


def write_text(path: epath.Path, text: str) -> None:
  """Writes a file that is either not there or whole, in a bucket or not."""
  if is_in_bucket(path):
    path.write_text(text)  # An object appears when all of it is there.
  else:
    write_atomically(pathlib.Path(path), text)


def read_bounded(path: epath.Path, *, most: int) -> bytes:
  """Returns the content of a file of at most ``most`` bytes.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is larger, or no file.
  """
  if not is_in_bucket(path):
    return read_bytes(pathlib.Path(path), most=most)
  if path.stat().length > most:
    raise ValueError(f"{path} has more than {most} bytes")
  return path.read_bytes()


def files(root: epath.Path, *, deep: bool = True) -> Iterator[epath.Path]:
  """Yields the files of a folder, in order, and if ``deep`` of its folders."""
  for path in sorted(root.iterdir()):
    if path.is_dir():
      yield from files(path) if deep else ()
    # An empty object that stands for a folder is listed in it.
    elif path.name != root.name or path.exists():
      yield path


def absolute(path: epath.PathLike) -> epath.Path:
  """Returns a path from the root, as orbax wants it, or an address as it is."""
  return epath.Path(path if is_in_bucket(path) else os.path.abspath(path))


def is_in_bucket(path: epath.PathLike) -> bool:
  """Whether a path is an address."""
  return f"{path}".startswith(SCHEME)


def with_addresses(text: str) -> str:
  """Returns a message in which folders of ``place`` have their addresses."""
  for folder, remote in _remotes.items():
    text = text.replace(f"{folder}", f"{remote.root}")
  return text


@contextlib.contextmanager
def speaking_of(root: epath.Path) -> Iterator[None]:
  """Names an address in errors, which come from several libraries.

  Raises:
    OSError: for any error, if the path is in a bucket.
  """
  try:
    yield
  except Exception as error:
    if is_in_bucket(root) and not f"{error}".startswith(f"{root} "):
      raise OSError(f"{root} cannot be used: {error}") from error
    raise


def _version(path: Any) -> tuple[int, int]:
  found = os.stat(path)
  return found.st_size, found.st_mtime_ns


def _check_installed(address):
  try:
    import fsspec
    import gcsfs  # noqa: F401
  except ImportError as error:
    raise ImportError(
      f"{address} needs gcsfs: pip install 'bitnet_jax[gcs]'"
    ) from error
  # What others write, orbax among them, is to be seen at once.
  fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
