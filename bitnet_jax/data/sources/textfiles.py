"""Text files in UTF-8: compressed ones, and one file per split or language.

Files whose names end in `.gz` or `.xz` are decompressed. A path with `{split}`
has one file per split, see `find_splits`. Errors name the file and the line.
"""

import codecs
import contextlib
import gzip
import itertools
import lzma
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from bitnet_jax import choices, files
from bitnet_jax.data import splits
from bitnet_jax.data.sources import paths, tables
from bitnet_jax.data.sources.tables import Records, Source, Table

LARGEST_TEXT = 2**34  # bytes, unpacked
# Most bytes of a decompressed file: this number, or this multiple of its size.
# Texts grow by less than 10, files that are made to fill a memory by 1,000.
ALWAYS_UNPACKED, MOST_GROWTH = 2**22, 32
_PART = 2**16  # bytes that are read at a time

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
  """Returns the absolute path of a file; a leading `~` is the home folder.

  Raises:
    FileNotFoundError: the file does not exist; names the nearest.
    ValueError: it is a folder.
  """
  file = pathlib.Path(path).expanduser().absolute()
  if not file.is_file():
    raise paths.missing(path)
  return file


def find_splits(
  pattern: str,
  names: Mapping[str, str],
  is_there: Callable[[str], bool] = paths.is_there,
) -> dict[str, str]:
  """Returns the path of each split that exists: of a file, or a glob.

  Args:
    pattern: a path with `{split}` in place of the name of a split, or the path
      of the only file, which is "train".
    names: the name of "train", "valid" or "test", where it is none of the
      usual: train; valid, val, validation or dev; test.
    is_there: whether a path exists.

  Raises:
    FileNotFoundError: "train" or a split in `names` has no file.
    ValueError: a split has two files, or names do not apply.
  """
  for key in names:
    choices.check(key, splits.NAMES, key="split_names")
  if "{split}" not in pattern:
    if names:
      raise ValueError(
        f"split_names={dict(names)} needs {{split}} in the path, not {pattern}"
      )
    if not is_there(pattern):
      raise paths.missing(pattern)
    return {"train": pattern}
  found = {}
  for key, usual in _USUAL.items():
    tried = [names[key]] if key in names else usual
    possible = [pattern.replace("{split}", name) for name in tried]
    there = [path for path in possible if is_there(path)]
    if len(there) > 1:
      raise ValueError(
        f"{key} can be {' or '.join(there)}: say which in split_names"
      )
    if not there and (key in names or key == "train"):
      raise paths.missing(possible[0])
    if there:
      found[key] = there[0]
  return found


def read_splits(
  pattern: str,
  cuts: splits.Cuts,
  read: Callable[[pathlib.Path], Table | Records],
) -> Source:
  """Reads the files of each split, see `find_splits`.

  Several files that a glob matches are one table, in the order of their names.
  """
  there = find_splits(pattern, dict(cuts.split_names))
  return Source(
    splits={
      key: tables.join([read(file) for file in paths.find_files(path)], path)
      for key, path in there.items()
    }
  )


def whole(content: str, name: str) -> Table:
  """Returns a table of one row, a whole text."""
  return Table(columns={"text": [content]}, name=name)


def read_whole(
  pattern: str,
  cuts: splits.Cuts,
  cut: Callable[[str, str], Table] = whole,
) -> Source:
  """Reads files of texts, see `find_splits`.

  Args:
    pattern: of the files.
    cuts: for names of splits.
    cut: makes a table with the column "text" of the text of a file and its
      name; by default a table of one row.
  """
  return read_splits(pattern, cuts, lambda file: cut(read(file), str(file)))


def read_languages(
  pattern: str, cuts: splits.Cuts, languages: Sequence[str]
) -> Source:
  """Reads one file per split and language, with one row per line.

  Args:
    pattern: a path with `{lang}` in place of the name of a language.
    cuts: for names of splits.
    languages: the names, which become columns.

  Raises:
    FileNotFoundError: one of the files is missing.
    ValueError: two files have different numbers of lines.
  """
  names = dict(cuts.split_names)
  of = {
    language: find_splits(pattern.replace("{lang}", language), names)
    for language in languages
  }
  found = {}
  for key in splits.NAMES:
    there = [of[code][key] for code in languages if key in of[code]]
    if not there:
      continue
    if len(there) < len(languages):
      raise FileNotFoundError(
        f"{key} has only {', '.join(there)}, a file of one of the languages"
        f" {', '.join(languages)}"
      )
    columns = {code: lines(find(of[code][key])) for code in languages}
    first = len(columns[languages[0]])
    for path, column in zip(there, columns.values(), strict=True):
      if len(column) != first:
        raise ValueError(
          f"{there[0]} has {first} lines, but {path} has {len(column)}"
        )
    found[key] = Table(columns=columns, name=" and ".join(there))
  return Source(splits=found)


def read(file: pathlib.Path) -> str:
  r"""Returns the text of a file.

  Line ends become "\n" and a byte order mark is dropped; nothing else changes.

  Raises:
    ValueError: the file is damaged, is not UTF-8, or is beyond the limits
      above.
  """
  try:
    data = _content(file)
  except _READ_ERRORS as error:
    raise _unreadable(file, error) from error
  try:
    decoded = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise _not_utf8(file, line, data, error) from error
  return decoded.replace("\r\n", "\n")


def stream(file: pathlib.Path) -> Iterator[str]:
  """Yields the lines of a file with their ends; holds one at a time.

  Raises:
    ValueError: as `read` does.
  """
  found = _byte_lines(file)
  for number in itertools.count(1):
    try:
      data = next(found, None)
    except _READ_ERRORS as error:
      raise _unreadable(file, error) from error
    if data is None:
      return
    try:
      line = data.decode("utf-8" if number > 1 else "utf-8-sig")
    except UnicodeDecodeError as error:
      raise _not_utf8(file, number, data, error) from error
    yield f"{line[:-2]}\n" if line.endswith("\r\n") else line


def _unreadable(file, error):
  reason = str(error) or repr(error)  # A MemoryError says nothing.
  return ValueError(f"cannot read {file}: {reason:.200}")


def _not_utf8(file, line, data, error):
  is_wide = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
  return ValueError(
    f"{file}, line {line} is not UTF-8: {error}; save it as UTF-8"
    + (", it looks like UTF-16" if is_wide and line == 1 else "")
  )


@contextlib.contextmanager
def _opened(file):
  """Opens a file; yields the decompressed stream, and most bytes of it."""
  with files.open_regular(file, most=LARGEST_TEXT) as packed:
    opened = _PACKED.get(file.suffix)
    if opened is None:
      yield packed, LARGEST_TEXT
      return
    size = file.stat().st_size
    with opened(packed) as unpacked:
      yield unpacked, max(ALWAYS_UNPACKED, MOST_GROWTH * size)


def _content(file):
  """Returns the decompressed bytes of a file."""
  if file.suffix not in _PACKED:
    return files.read_bytes(file, most=LARGEST_TEXT)
  with _opened(file) as (unpacked, most):
    return files.read_unpacked(unpacked.read, most=most)


def _byte_lines(file):
  """Yields the decompressed lines of a file, with their ends."""
  with _opened(file) as (unpacked, most):
    size, rest = 0, bytearray()
    while part := unpacked.read(_PART):
      size += len(part)
      files.check_unpacked(size, most=most)
      *ended, last = part.split(b"\n")
      for line in ended:
        yield bytes(rest + line + b"\n")
        rest.clear()
      rest += last
    if rest:
      yield bytes(rest)


def lines(file: pathlib.Path) -> list[str]:
  """Reads the lines of a file, without their ends; only line feeds end one."""
  return split_lines(read(file))


def split_lines(content: str) -> list[str]:
  """Returns the lines of a text, without their ends."""
  return content.removesuffix("\n").split("\n") if content else []
