"""Files that survive a kill, and files of strangers."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

# Far more than any description of a model needs.
LARGEST_JSON = 64 * 2**20


def cache_folder() -> pathlib.Path:
  """Returns where things are kept that can be made again."""
  root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(root) / "bitnet_jax"


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Writes a file that is either not there or whole, whatever happens."""
  partial = path.with_name(f"{path.name}.partial")
  with partial.open("w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


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


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the object in a JSON file of at most ``LARGEST_JSON`` bytes.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is damaged, too large, or no object.
  """
  with path.open("rb") as file:
    text = file.read(LARGEST_JSON + 1)
  if len(text) > LARGEST_JSON:
    raise ValueError(f"{path} has more than {LARGEST_JSON} bytes")
  try:
    content = json.loads(text)
  except (RecursionError, ValueError) as error:
    raise ValueError(f"{path} is damaged: {error}") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} is damaged: it holds no object")
  return content
