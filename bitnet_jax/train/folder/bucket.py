"""Run folders in Google Cloud Storage: ``gs://bucket/folder``.

A process keeps the small files of a run (config, metrics, events, vocabulary)
in a local folder. It fetches what is in the bucket at the start, and sends what
has changed whenever it makes files durable: a bucket cannot append to a file.
orbax writes checkpoints to the bucket itself, from all machines. No lock keeps
a second run out of the same folder.
"""

import atexit
import contextlib
import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from etils import epath

from bitnet_jax.files import PathLike, local_path, read_bytes, write_atomically

SCHEME = "gs://"
CHECKPOINTS = "checkpoints"
_PARTIAL = ".partial"


@dataclasses.dataclass(frozen=True)
class _Remote:
  """The folder in a bucket that a local folder stands for.

  Attributes:
    root: the folder in the bucket.
    sent: size and modification time of each file that is there, by its path.
  """

  root: epath.Path
  sent: dict[str, tuple[int, int]]


_remotes: dict[pathlib.Path, _Remote] = {}
_scratches: list[pathlib.Path] = []


@atexit.register
def leave() -> None:
  """Removes the local folders that stand for folders in buckets."""
  for scratch in _scratches:
    shutil.rmtree(scratch, ignore_errors=True)


def place(address: PathLike) -> pathlib.Path:
  """Returns the local folder of a run.

  Args:
    address: a path, or an address in a bucket, whose files are fetched into a
      folder that lasts as long as this process.

  Raises:
    ImportError: if gcsfs is not installed.
    OSError: if the bucket cannot be read.
    ValueError: for an address of another scheme, or one without a folder.
  """
  if not isinstance(address, str) or not (
    "://" in address or address.startswith("gs:")
  ):
    return local_path(address)
  bucket, _, name = address.removeprefix(SCHEME).strip("/").partition("/")
  inside = bool(bucket and name) and ".." not in name.split("/")
  if not address.startswith(SCHEME) or not inside:
    raise ValueError(f"{address!r} is neither a path nor gs://BUCKET/FOLDER")
  try:
    import fsspec
    import gcsfs  # noqa: F401
  except ImportError as error:
    raise ImportError(
      f"{address} needs gcsfs: pip install 'bitnet_jax[gcs]'"
    ) from error
  # Shows at once what other writers, such as orbax, have written.
  fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
  scratch = pathlib.Path(tempfile.mkdtemp(prefix="bitnet_jax-"))
  _scratches.append(scratch)
  folder = scratch / bucket / name
  folder.mkdir(parents=True)
  _remotes[folder] = _Remote(epath.Path(f"{SCHEME}{bucket}/{name}"), {})
  fetch(folder)
  return folder


def home(folder: pathlib.Path) -> epath.Path:
  """Returns where the files of a run last: its bucket, or the folder itself."""
  remote = _remotes.get(folder)
  return remote.root if remote else epath.Path(folder)


def checkpoint_folder(folder: pathlib.Path) -> epath.Path:
  """Returns where the checkpoints of a run are."""
  return home(folder) / CHECKPOINTS


def fetch(folder: pathlib.Path) -> None:
  """Copies the files of a run from its bucket, if it is in one.

  Not those in subfolders: event files, which are only added, and checkpoints.

  Raises:
    OSError: if the bucket cannot be read, or if a file has the name.
  """
  remote = _remotes.get(folder)
  if remote is None:
    return
  with naming_address(remote.root):
    if not remote.root.exists():
      return
    if not remote.root.is_dir():
      raise NotADirectoryError("it is a file")
    for source in files(remote.root, deep=False):
      target = folder / source.name
      target.write_bytes(source.read_bytes())
      remote.sent[source.name] = _version(target)


def send(folder: pathlib.Path) -> None:
  """Copies changed files of a run to its bucket, if it is in one.

  Raises:
    OSError: if the bucket cannot be written.
  """
  remote = _remotes.get(folder)
  if remote is None:
    return
  with naming_address(remote.root):
    for source in files(epath.Path(folder)):
      name = source.relative_to(folder).as_posix()
      version = _version(source)
      hidden = name.startswith(".") or name.endswith(_PARTIAL)
      if not hidden and remote.sent.get(name) != version:
        (remote.root / name).write_bytes(source.read_bytes())
        remote.sent[name] = version


def names(folder: pathlib.Path) -> set[str]:
  """Returns the names of what is in a run's folder, or in its bucket."""
  found: set[str] = set()
  for root in {epath.Path(folder), home(folder)}:
    with naming_address(root):
      if root.is_dir():
        found |= {path.name for path in root.iterdir()}
  return found


def has(folder: pathlib.Path, name: str) -> bool:
  """Whether a run's folder, or the one in its bucket, holds a file."""
  root = home(folder)
  with naming_address(root):
    return (root / name).exists()


def remove(folder: pathlib.Path, name: str) -> None:
  """Removes a file or a folder of a run, also from its bucket.

  Raises:
    OSError: if it cannot be removed.
  """
  if folder in _remotes:
    sent = _remotes[folder].sent
    for path in [path for path in sent if path.split("/")[0] == name]:
      del sent[path]
  for root in {epath.Path(folder), home(folder)}:
    with naming_address(root / name):
      if (root / name).is_dir():
        (root / name).rmtree()
      else:
        (root / name).unlink(missing_ok=True)


def write_text(path: epath.Path, text: str) -> None:
  """Writes a file atomically; an object in a bucket always is."""
  if is_in_bucket(path):
    path.write_text(text)
  else:
    write_atomically(pathlib.Path(path), text)


def read_bounded(path: epath.Path, *, most: int) -> bytes:
  """Returns the content of a file of at most ``most`` bytes.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is larger, or not a regular file.
  """
  if not is_in_bucket(path):
    return read_bytes(pathlib.Path(path), most=most)
  if path.stat().length > most:
    raise ValueError(f"{path} has more than {most} bytes")
  return path.read_bytes()


def files(root: epath.Path, *, deep: bool = True) -> Iterator[epath.Path]:
  """Yields the files of a folder, in order, and if ``deep`` of its subfolders.

  ``epath.Path.walk`` lists empty objects that stand for folders as files.
  """
  for path in sorted(root.iterdir()):
    if path.is_dir():
      yield from files(path) if deep else ()
    elif path.name != root.name or path.exists():
      yield path


def is_in_bucket(path: epath.PathLike) -> bool:
  """Whether a path is an address."""
  return f"{path}".startswith(SCHEME)


def with_addresses(text: str) -> str:
  """Replaces local folders in a message by the addresses they stand for."""
  for folder, remote in _remotes.items():
    text = text.replace(f"{folder}", f"{remote.root}")
  return text


@contextlib.contextmanager
def naming_address(root: epath.Path) -> Iterator[None]:
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


def _version(path: epath.PathLike) -> tuple[int, int]:
  found = pathlib.Path(path).stat()
  return found.st_size, found.st_mtime_ns
