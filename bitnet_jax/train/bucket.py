"""Folders of runs in Google Cloud Storage: ``gs://bucket/folder``.

A process works in a folder of its machine with what is small: config, metrics,
events, vocabulary. That is fetched when it starts, and copied back whenever it
is made durable. Checkpoints, which may lie on many machines in parts, are
written to the bucket itself. No lock keeps a second run out of the same folder.
"""

import atexit
import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from etils import epath

from bitnet_jax.files import write_atomically

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


def place(address: str) -> pathlib.Path:
  """Returns the folder to work in.

  Args:
    address: a path, or an address in a bucket, whose files are fetched into a
      folder that lasts as long as this process.

  Raises:
    ImportError: if what reads buckets is not installed.
    OSError: if the bucket cannot be read.
    ValueError: for an address of another kind, or one without a folder.
  """
  if "://" not in address:
    return pathlib.Path(address).expanduser()
  bucket, _, name = address.removeprefix(SCHEME).strip("/").partition("/")
  if not address.startswith(SCHEME) or not bucket or not name:
    raise ValueError(f"{address!r} is neither a path nor gs://BUCKET/FOLDER")
  _check_installed(address)
  scratch = pathlib.Path(tempfile.mkdtemp(prefix="bitnet_jax-"))
  atexit.register(shutil.rmtree, scratch, ignore_errors=True)
  folder = scratch / bucket / name
  folder.mkdir(parents=True)
  _remotes[folder] = _Remote(epath.Path(f"{SCHEME}{bucket}/{name}"), {})
  fetch(folder)
  return folder


def checkpoint_folder(folder: pathlib.Path) -> epath.Path:
  """Returns where the checkpoints of a run are."""
  remote = _remotes.get(folder)
  root = remote.root if remote else epath.Path(folder.absolute())
  return root / CHECKPOINTS


def fetch(folder: pathlib.Path) -> None:
  """Copies the small files of a run from its bucket, if it is in one.

  Raises:
    OSError: if the bucket cannot be read.
  """
  remote = _remotes.get(folder)
  if remote is None:
    return
  with _speaking_of(remote.root):
    if not remote.root.exists():
      return
    for source in files(remote.root, but=CHECKPOINTS):
      name = source.relative_to(remote.root).as_posix()
      target = folder / name
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(source.read_bytes())
      remote.sent[name] = _version(target)


def send(folder: pathlib.Path) -> None:
  """Copies what has changed in a run's folder to its bucket, if it is in one.

  Raises:
    OSError: if the bucket cannot be written.
  """
  remote = _remotes.get(folder)
  if remote is None:
    return
  with _speaking_of(remote.root):
    for source in files(epath.Path(folder)):
      name = source.relative_to(folder).as_posix()
      version = _version(source)
      hidden = name.startswith(".") or name.endswith(_PARTIAL)
      if hidden or remote.sent.get(name) == version:
        continue
      (remote.root / name).write_bytes(source.read_bytes())
      remote.sent[name] = version


def write_text(path: epath.Path, text: str) -> None:
  """Writes a file that is either not there or whole, in a bucket or not."""
  if f"{path}".startswith(SCHEME):
    path.write_text(text)  # An object appears when all of it is there.
  else:
    write_atomically(pathlib.Path(path), text)


def files(root: epath.Path, *, but: str | None = None) -> Iterator[epath.Path]:
  """Yields all files of a folder and its folders, in order.

  Args:
    root: the folder.
    but: name in it of what is left out.
  """
  for path in sorted(root.iterdir()):
    if path.name == but:
      continue
    if path.is_dir():
      yield from files(path)
    else:
      yield path


def _version(path: Any) -> tuple[int, int]:
  found = os.stat(path)
  return found.st_size, found.st_mtime_ns


def _check_installed(address):
  if importlib.util.find_spec("tensorflow") is not None:
    return
  try:
    import fsspec
    import gcsfs  # noqa: F401
  except ImportError as error:
    raise ImportError(
      f"{address} needs gcsfs: pip install 'bitnet_jax[gcs]'"
    ) from error
  # What others write, orbax among them, is to be seen at once.
  fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False


@contextlib.contextmanager
def _speaking_of(root):
  """Names the folder in errors, which come from several libraries."""
  try:
    yield
  except Exception as error:
    raise OSError(f"{root} cannot be used: {error}") from error
