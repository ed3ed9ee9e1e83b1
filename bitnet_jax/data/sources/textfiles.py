"""Reads text files, plain or compressed; errors name file and line."""

import gzip
import lzma
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence

from bitnet_jax import choices, files
from bitnet_jax.data import splits
from bitnet_jax.data.sources.tables import Records, Source, Table

LARGEST_TEXT = 2**34  # bytes, decompressed
# Bytes to which a compressed file may expand: this many, or this many times
# its size. Texts expand less than 10 times, decompression bombs 1,000 times.
ALWAYS_UNPACKED, MOST_GROWTH = 2**22, 32

_PACKED = {".gz": gzip.open, ".xz": lzma.open}
_READ_ERRORS = (
  EOFError,
  MemoryError,
  OSError,
  ValueError,
  lzma.LZMAError,
  zlib.error,
)
# Usual names of the splits in files.
_USUAL = {
  "train": ("train",),
  "valid": ("valid", "val", "validation", "dev"),
  "test": ("test",),
}


def find(path: str) -> pathlib.Path:
  """Returns the absolute path of an existing file.

  Args:
    path: a leading `~` is the home folder.

  Raises:
    FileNotFoundError: the file does not exist.
  """
  file = pathlib.Path(path).expanduser().absolute()
  if not file.is_file():
    raise FileNotFoundError(f"there is no file {file}")
  return file


def find_splits(pattern: str, names: Mapping[str, str]) -> dict[str, str]:
  """Returns the path of each existing split.

  Args:
    pattern: path of the only file, which is "train", or a path with `{split}`
      in place of a split's name. A missing "train" is an error.
    names: unusual names of splits, by "train", "valid" and "test"; these must
      exist. The usual ones are train; valid, val, validation or dev; test.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: a split has two files, or names do not apply.
  """
  for key in names:
    choices.check(key, splits.NAMES, key="split_names")
  if "{split}" not in pattern:
    if names:
      raise ValueError(
        f"split_names={dict(names)} needs {{split}} in the path, not {pattern}"
      )
    find(pattern)
    return {"train": pattern}
  found = {}
  for key, usual in _USUAL.items():
    tried = [names[key]] if key in names else usual
    paths = [pattern.replace("{split}", name) for name in tried]
    there = [p for p in paths if pathlib.Path(p).expanduser().is_file()]
    if len(there) > 1:
      raise ValueError(
        f"{key} can be {' or '.join(there)}: say which in split_names"
      )
    if not there and (key in names or key == "train"):
      raise FileNotFoundError(f"there is no file {' or '.join(paths)}")
    if there:
      found[key] = there[0]
  return found


def read_splits(
  pattern: str,
  cuts: splits.Cuts,
  read: Callable[[pathlib.Path], Table | Records],
) -> Source:
  """Reads the file of each split, see `find_splits`."""
  paths = find_splits(pattern, dict(cuts.split_names))
  found = {key: read(find(path)) for key, path in paths.items()}
  return Source(splits=found)


def read_whole(pattern: str, cuts: splits.Cuts) -> Source:
  """Reads files as tables of one row; its column "text" is the whole file."""

  def whole(file):
    return Table(columns={"text": [read(file)]}, name=str(file))

  return read_splits(pattern, cuts, whole)


def read_languages(
  pattern: str, cuts: splits.Cuts, languages: Sequence[str]
) -> Source:
  """Reads a file per split and language, with one row per line.

  Args:
    pattern: path with `{lang}` in place of a language.
    cuts: names of the splits.
    languages: names of the columns.

  Raises:
    FileNotFoundError: one of the files is missing.
    ValueError: two files have different numbers of lines.
  """
  names = dict(cuts.split_names)
  paths = {
    language: find_splits(pattern.replace("{lang}", language), names)
    for language in languages
  }
  found = {}
  for key in splits.NAMES:
    there = [paths[code][key] for code in languages if key in paths[code]]
    if not there:
      continue
    if len(there) < len(languages):
      raise FileNotFoundError(
        f"{key} has only {', '.join(there)}, a file of one of the languages"
        f" {', '.join(languages)}"
      )
    columns = {code: lines(find(paths[code][key])) for code in languages}
    first = len(columns[languages[0]])
    for path, column in zip(there, columns.values(), strict=True):
      if len(column) != first:
        raise ValueError(
          f"{there[0]} has {first} lines, but {path} has {len(column)}"
        )
    found[key] = Table(columns=columns, name=" and ".join(there))
  return Source(splits=found)


def read(file: pathlib.Path) -> str:
  r"""Reads a UTF-8 file, decompressed if its name ends in `.gz` or `.xz`.

  Line ends become "\n" and a byte order mark is dropped; nothing else changes.

  Raises:
    ValueError: the file is damaged, or not UTF-8, naming the line; or it has
      more than `LARGEST_TEXT` bytes, or expands to more than `ALWAYS_UNPACKED`
      and more than `MOST_GROWTH` times its size.
  """
  try:
    data = _content(file)
  except _READ_ERRORS as error:
    reason = str(error) or repr(error)  # A MemoryError says nothing.
    raise ValueError(f"cannot read {file}: {reason:.200}") from error
  try:
    decoded = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise ValueError(f"{file}, line {line} is not UTF-8: {error}") from error
  return decoded.replace("\r\n", "\n")


def _content(file):
  """Returns the decompressed bytes of a file."""
  opened = _PACKED.get(file.suffix)
  if opened is None:
    return files.read_bytes(file, most=LARGEST_TEXT)
  with (
    files.open_regular(file, most=LARGEST_TEXT) as packed,
    opened(packed) as stream,
  ):
    size = file.stat().st_size
    most = max(ALWAYS_UNPACKED, MOST_GROWTH * size)
    return files.read_unpacked(stream.read, most=most)


def lines(file: pathlib.Path) -> list[str]:
  """Reads the lines of a file, without their ends; only line feeds end one."""
  return split_lines(read(file))


def split_lines(content: str) -> list[str]:
  """Returns the lines of a text, without their ends."""
  return content.removesuffix("\n").split("\n") if content else []
