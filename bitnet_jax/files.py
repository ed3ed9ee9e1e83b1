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

# Limits of a JSON file: its bytes, and its values, each of which takes up to
# 100 bytes of memory. Descriptions of models with a million parts are smaller.
LARGEST_JSON = 2**26
MOST_VALUES = 2**20
_PART = 2**16  # bytes that are read at a time


PathLike = str | os.PathLike[str]


def local_path(path: PathLike) -> pathlib.Path:
  """Returns a local path; a leading ``~`` is the home folder.

  Raises:
    ValueError: for an address such as ``gs://bucket/folder``.
  """
  if isinstance(path, str) and "://" in path:
    raise ValueError(f"{path} is an address; a local path is required")
  return pathlib.Path(path).expanduser()


def cache_folder() -> pathlib.Path:
  """Returns the cache folder, ``~/.cache/bitnet_jax`` by default."""
  root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(root) / "bitnet_jax"


def make_private(folder: pathlib.Path) -> None:
  """Creates a cache folder that only its owner may enter.

  Raises:
    PermissionError: if another user can write to it, see ``check_ours``.
  """
  for made in (cache_folder(), folder):
    made.mkdir(mode=0o700, parents=True, exist_ok=True)
    if made.stat().st_uid == os.getuid():
      made.chmod(0o700)
  check_ours(folder)


def check_ours(path: pathlib.Path) -> pathlib.Path:
  """Checks that no other user can write to a file that will be executed.

  The file and the folders above it must belong to this user or to root, and no
  other user may write to them. Sticky folders such as `/tmp`, where only owners
  may rename, are safe as parents.

  Args:
    path: an existing file or folder.

  Returns:
    The checked path, without symbolic links.

  Raises:
    PermissionError: if another user can write to it; names the part to fix.
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
  """Adds the path to errors of writing a file; errors of opening have it."""
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, f"{path}") from error


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Writes a file atomically: it is either complete or absent.

  ``epath`` neither waits for the disk nor renames into place.

  Raises:
    OSError: if it cannot be written; names the file and leaves nothing of it.
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
  """Creates a folder atomically: it appears when the block ends without errors.

  Args:
    path: the folder; empty or absent.

  Yields:
    A temporary folder to write into.

  Raises:
    FileExistsError: if the folder exists and is not empty.
    ValueError: for an address in a bucket.
  """
  if is_address(path):
    raise ValueError(f"--output={path} must be a local folder")
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
  """Opens a regular file for reading; never waits for a pipe.

  Args:
    path: path of the file, which messages name.
    most: most bytes that the file may have; any number by default.

  Raises:
    FileNotFoundError: if the file does not exist.
    ValueError: for a folder, a pipe, a device or a socket, or a larger file.
  """
  # Opening a pipe would wait for another process.
  descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  found = os.fstat(descriptor)
  if not stat.S_ISREG(found.st_mode):
    os.close(descriptor)
    kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe or device"
    raise ValueError(f"{path} is a {kind}, not a file")
  with os.fdopen(descriptor, "rb") as file, naming(path):
    if most is not None and found.st_size > most:
      raise ValueError(f"{path} has more than {most} bytes")
    yield file


def read_bytes(path: pathlib.Path, *, most: int) -> bytes:
  """Returns the content of a file of at most ``most`` bytes.

  Raises:
    FileNotFoundError: if the file does not exist.
    ValueError: if it is larger, or not a regular file.
  """
  with open_regular(path, most=most) as file:
    size = os.fstat(file.fileno()).st_size
    data = file.read(size + 1)
    if len(data) <= size:
      return data
    # It grew meanwhile, or is a system file such as those in /proc.
    parts = [data]
    while part := file.read(_PART):
      parts.append(part)
      size += len(part)
      if size >= most:
        raise ValueError(f"{path} has more than {most} bytes")
  return b"".join(parts)


def read_unpacked(read: Callable[[int], bytes], *, most: int) -> bytearray:
  """Returns the decompressed content of a file, up to a limit.

  Args:
    read: returns the next decompressed bytes, at most as many as its argument.
    most: most bytes of the content.

  Raises:
    ValueError: if there are more.
  """
  data = bytearray()
  while part := read(_PART):
    data += part
    check_unpacked(len(data), most=most)
  return data


def check_unpacked(size: int, *, most: int) -> None:
  """Raises a ValueError if a compressed file expands beyond a limit."""
  if size > most:
    raise ValueError(
      f"it expands to more than {most} bytes; decompress it by hand to read it"
      " all the same"
    )


def parse_json(text: str | bytes, *, most: int | None = None) -> Any:
  """Parses untrusted JSON within limits.

  Args:
    text: the JSON text.
    most: most values in it, ``MOST_VALUES`` by default. Separators are counted
      instead of values, including those inside strings.

  Raises:
    ValueError: if it is damaged, too deeply nested or too large, or has a key
      twice.
  """
  most = MOST_VALUES if most is None else most
  data = text.encode() if isinstance(text, str) else text
  if sum(data.count(sign) for sign in (b"[", b"{", b",", b":")) > most:
    raise ValueError(f"it holds more than {most} values")
  try:
    return json.loads(data, object_pairs_hook=_object)
  except RecursionError as error:
    raise ValueError(f"its values are nested too deeply: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Returns a JSON object; raises a ValueError for duplicate keys."""
  found: dict[str, Any] = {}
  for name, value in pairs:
    if name in found:
      raise ValueError(f"the key {name[:40]!r} appears twice")
    found[name] = value
  return found


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the object in a JSON file of at most ``LARGEST_JSON`` bytes.

  Raises:
    FileNotFoundError: if the file does not exist.
    ValueError: if it is damaged, too large, or holds no object.
  """
  data = read_bytes(path, most=LARGEST_JSON)
  try:
    content = parse_json(data)
  except ValueError as error:
    raise ValueError(f"{path} is damaged: {error}") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} is damaged: it holds no object")
  return content
