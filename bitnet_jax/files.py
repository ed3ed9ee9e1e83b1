"""Atomic writes, and bounded reads of untrusted files."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import Any

# Bytes of a JSON file, and values in it: each takes up to 100 bytes of memory.
# Descriptions of models with a million parts stay below.
LARGEST_JSON = 2**26
MOST_VALUES = 2**20
_PART = 2**16  # bytes that are unpacked at a time


PathLike = str | os.PathLike[str]


def local_path(path: PathLike) -> pathlib.Path:
  """Returns a path; a leading ``~`` is the home folder.

  Raises:
    ValueError: for an address, which is no path of this machine.
  """
  if isinstance(path, str) and "://" in path:
    raise ValueError(f"{path} is an address; give a path of this machine")
  return pathlib.Path(path).expanduser()


def cache_folder() -> pathlib.Path:
  """Returns where things are kept that can be made again."""
  root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(root) / "bitnet_jax"


def make_private(folder: pathlib.Path) -> None:
  """Makes a folder of the cache that its owner alone may enter.

  Raises:
    PermissionError: see ``check_ours``.
  """
  for made in (cache_folder(), folder):
    made.mkdir(mode=0o700, parents=True, exist_ok=True)
    if made.stat().st_uid == os.getuid():
      made.chmod(0o700)
  check_ours(folder)


def check_ours(path: pathlib.Path) -> pathlib.Path:
  """Checks that no other user can have written a file before it is executed.

  The file, and the folders above it, belong to this user or to root, and no
  other may write to them. In a folder such as `/tmp`, where everyone may write
  but only owners may rename, the folders below are safe.

  Args:
    path: of a file or folder that is there.

  Returns:
    The path without symbolic links, which is the one that was checked.

  Raises:
    PermissionError: if it is not so; names what is to be mended.
  """
  path = path.resolve(strict=True)
  for part in (path, *path.parents):
    found = part.stat()
    is_sticky = part != path and found.st_mode & stat.S_ISVTX
    if found.st_uid not in (os.getuid(), 0):
      raise PermissionError(f"{part} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_sticky:
      raise PermissionError(
        f"other users may write to {part} (chmod go-w changes that)"
      )
  return path


def sync(path: pathlib.Path) -> None:
  """Waits until a file or folder is on disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
  """Names a file in errors of writing it; those of opening it do so already."""
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, f"{path}") from error


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Writes a file that is either not there or whole, whatever happens.

  Raises:
    OSError: if it cannot be written, naming it; nothing is left of it.
  """
  partial = path.with_name(f"{path.name}.partial")
  try:
    with naming(path), partial.open("w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  except OSError:
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a folder to fill, which takes its place when it is whole.

  A failure leaves nothing.

  Args:
    path: the place; empty, or not there.

  Raises:
    FileExistsError: if there is anything.
    ValueError: for an address in a bucket.
  """
  if is_address(path):
    raise ValueError(f"--output={path} must be a folder of this machine")
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise FileExistsError(f"--output={path} exists; choose another folder")
  partial = path.with_name(f".{path.name}.partial")
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  try:
    yield partial
    os.replace(partial, path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def is_address(path: pathlib.Path) -> bool:
  """Whether a path was an address in a bucket, ``gs://bucket/folder``."""
  return path.parts[:1] == ("gs:",)


@contextlib.contextmanager
def open_regular(
  path: pathlib.Path, *, most: int | None = None
) -> Iterator[io.BufferedReader]:
  """Opens a file for reading, without waiting for what is no file.

  Args:
    path: of the file, which messages name.
    most: bytes that it may have; any number by default.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: for a folder, a pipe, a device or a socket, or a larger file.
  """
  # Opening a pipe would wait for another process.
  descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  found = os.fstat(descriptor)
  if not stat.S_ISREG(found.st_mode):
    os.close(descriptor)
    kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe or device"
    raise ValueError(f"{path} is a {kind}, not a file")
  with os.fdopen(descriptor, "rb") as file:
    if most is not None and found.st_size > most:
      raise ValueError(f"{path} has more than {most} bytes")
    try:
      yield file
    except OSError as error:
      if error.errno is None or error.filename is not None:
        raise
      raise OSError(error.errno, error.strerror, str(path)) from error


def read_bytes(path: pathlib.Path, *, most: int) -> bytes:
  """Returns the content of a file of at most ``most`` bytes.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is larger, or no file.
  """
  with open_regular(path, most=most) as file:
    size = os.fstat(file.fileno()).st_size
    data = file.read(size + 1)
    if len(data) <= size:
      return data
    # It grew meanwhile, or is one of those in which the system speaks.
    parts = [data]
    while part := file.read(_PART):
      parts.append(part)
      size += len(part)
      if size >= most:
        raise ValueError(f"{path} has more than {most} bytes")
  return b"".join(parts)


def read_unpacked(read: Callable[[int], bytes], *, most: int) -> bytearray:
  """Reads what a packed file becomes.

  Args:
    read: gives the next bytes of it.
    most: bytes that it may become.

  Raises:
    ValueError: if it becomes more.
  """
  data = bytearray()
  while part := read(_PART):
    data += part
    check_unpacked(len(data), most=most)
  return data


def check_unpacked(size: int, *, most: int) -> None:
  """Raises a ValueError for a packed file that grows as no data does."""
  if size > most:
    raise ValueError(
      f"it becomes more than {most} bytes; unpack it by hand, if it is to be"
      " read all the same"
    )


def parse_json(text: str | bytes, *, most: int | None = None) -> Any:
  """Returns what a JSON text says.

  Args:
    text: what is read.
    most: values in it, ``MOST_VALUES`` by default; the signs between values are
      counted, those in strings too.

  Raises:
    ValueError: if it is damaged, nested too deep, too large, or names a key
      twice.
  """
  most = MOST_VALUES if most is None else most
  data = text.encode() if isinstance(text, str) else text
  if sum(data.count(sign) for sign in (b"[", b"{", b",", b":")) > most:
    raise ValueError(f"it holds more than {most} values")
  try:
    return json.loads(data, object_pairs_hook=_object)
  except RecursionError as error:
    raise ValueError(f"its values are nested too deep: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Returns an object of JSON, whose keys must differ."""
  found: dict[str, Any] = {}
  for name, value in pairs:
    if name in found:
      raise ValueError(f"the key {name[:40]!r} is there twice")
    found[name] = value
  return found


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the object in a file of ``LARGEST_JSON`` bytes at most.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is damaged, too large, or no object.
  """
  data = read_bytes(path, most=LARGEST_JSON)
  try:
    content = parse_json(data)
  except ValueError as error:
    raise ValueError(f"{path} is damaged: {error}") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} is damaged: it holds no object")
  return content
