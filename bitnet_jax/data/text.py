"""Text files: plain or compressed UTF-8, errors with file and line."""

import gzip
import lzma
import pathlib
import zlib

_READ_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error)


def find(path: str) -> pathlib.Path:
  """Returns the absolute path of a file that is there.

  Args:
    path: a leading `~` is the home folder.

  Raises:
    FileNotFoundError: there is no such file.
  """
  file = pathlib.Path(path).expanduser().absolute()
  if not file.is_file():
    raise FileNotFoundError(f"there is no file {file}")
  return file


def read(file: pathlib.Path) -> str:
  r"""Reads a file of UTF-8, unpacked if its name ends in `.gz` or `.xz`.

  Line ends become "\n" and a byte order mark is dropped; nothing else changes.

  Raises:
    ValueError: the file is damaged, or not UTF-8; names the line.
  """
  opener = {".gz": gzip.open, ".xz": lzma.open}.get(file.suffix, open)
  try:
    with opener(file, "rb") as stream:
      data = stream.read()
  except _READ_ERRORS as error:
    raise ValueError(f"cannot read {file}: {error}") from error
  try:
    decoded = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise ValueError(f"{file}, line {line} is not UTF-8: {error}") from error
  return decoded.replace("\r\n", "\n")


def lines(file: pathlib.Path) -> list[str]:
  """Reads the lines of a file, without their ends; only line feeds end one."""
  content = read(file)
  if not content:
    return []
  return content.removesuffix("\n").split("\n")
