"""Finds the inputs that a command line names, and reads them one by one."""

import dataclasses
import functools
import glob
import itertools
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from bitnet_jax import choices
from bitnet_jax.data import splits
from bitnet_jax.data.sources import (
  class_folders,
  npz,
  pictures,
  registry,
  textfiles,
)
from bitnet_jax.data.sources.tables import Records, Table
from bitnet_jax.programs.predicting.families import Family

STDIN = "-"
_STDIN_NAME = "standard input"
# Formats of files with several inputs.
TABLES = ("csv", "tsv", "jsonl")
FORMATS = ("lines", *TABLES)
_PACKED = (".gz", ".xz")
# Members of a .npz file that hold inputs; the first that is there is read.
_MEMBERS = ("inputs", "x", "x_test")
_GLOB = "*?["


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """The inputs that a command line names.

  Attributes:
    places: files, folders, patterns, texts, or ``STDIN``.
    lists: files of several inputs each, or ``STDIN``.
    texts: texts themselves.
    format: format of ``lists`` and of standard input, in ``FORMATS``; ``None``
      for that of the file's name.
    columns: columns of a table to read; by default those of the run.
  """

  places: Sequence[str] = ()
  lists: Sequence[str] = ()
  texts: Sequence[str] = ()
  format: str | None = None
  columns: Sequence[str] = ()

  def check(self) -> None:
    """Raises a ValueError if it names no input, or one that cannot be read."""
    if self.format is not None:
      choices.check(self.format, FORMATS, key="--format")
    given = [*self.places, *self.lists]
    if not given and not self.texts:
      raise ValueError(
        "there is no input: give files, folders or texts, --inputs=FILE with"
        f" one a line, or {STDIN} for {_STDIN_NAME}"
      )
    if given.count(STDIN) > 1:
      raise ValueError(f"{STDIN} ({_STDIN_NAME}) is given twice")
    if STDIN in given and sys.stdin.isatty():
      raise ValueError(
        f"{STDIN} reads {_STDIN_NAME}, which is a terminal: pipe inputs into it"
      )


@dataclasses.dataclass(frozen=True)
class Item:
  """One input.

  Attributes:
    name: where it stands, for messages.
    shown: what output calls it: its place, or the text or texts.
    read: reads it: an array, or a tuple of texts. It raises an OSError or a
      ValueError for what cannot be read.
  """

  name: str
  shown: Any
  read: Callable[[], Any]


def find(request: Request, family: Family) -> Iterator[Item]:
  """Yields the inputs of a request, in its order.

  First come ``places``, then ``texts``, then ``lists``.

  Raises:
    FileNotFoundError: if a list, a folder or a pattern has no file.
    ValueError: for inputs that the model does not take.
  """
  request.check()
  finder = _FINDERS[family.reads](request, family)
  if request.texts and family.reads != "texts":
    raise ValueError(f"the model reads {family.reads}, not texts (--text)")
  parts: list[Iterable[Item]] = [finder.place(p) for p in request.places]
  if request.texts:
    parts.append(finder.in_place(request.texts))
  parts += [finder.listed(p) for p in request.lists]
  return itertools.chain.from_iterable(parts)


class _Finder:
  """Finds inputs of one kind; a method returns those of an argument."""

  endings: tuple[str, ...] = ()
  by_default = "lines"  # format of standard input

  def __init__(self, request: Request, family: Family):
    self.request, self.family = request, family

  def place(self, place: str) -> Iterable[Item]:
    """Finds the inputs of a file, a folder, a pattern or standard input."""
    if place == STDIN:
      return self.listed(place)
    path = pathlib.Path(place).expanduser()
    if path.is_dir():
      found = self.in_folder(path)
      if not found:
        raise ValueError(
          f"the folder {place} holds no file that ends in"
          f" {', '.join(self.endings)}, which the model could read"
        )
      return itertools.chain.from_iterable(map(self.file, found))
    if not path.exists() and any(sign in place for sign in _GLOB):
      if found := sorted(glob.glob(str(path), recursive=True)):
        paths = (pathlib.Path(name) for name in found)
        return itertools.chain.from_iterable(map(self.file, paths))
    return self.other(place, path)

  def other(self, place: str, path: pathlib.Path) -> Iterable[Item]:
    """Finds the inputs of what is neither a folder nor a pattern."""
    return self.file(path)

  def in_folder(self, path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of a folder and the folders in it, in order."""
    files = class_folders.files_in(path)
    return [f for f in files if f.name.lower().endswith(self.endings)]

  def file(self, path: pathlib.Path) -> Iterable[Item]:
    """Returns the inputs in a file."""
    raise NotImplementedError

  def row(self, table: Table, row: int) -> Item:
    """Returns the input in a row of a table."""
    raise NotImplementedError

  def line(self, line: str, name: str) -> Iterable[Item]:
    """Returns the inputs that a line names."""
    raise NotImplementedError

  def names(self) -> tuple[str, ...]:
    """Returns the columns of a table to read; none if they are not known."""
    return tuple(self.request.columns) or self.family.columns

  def in_place(self, texts: Sequence[str]) -> Iterable[Item]:
    """Returns texts that are given themselves."""
    raise NotImplementedError

  def listed(self, place: str) -> Iterable[Item]:
    """Returns the inputs in a file of several, or in standard input."""
    form = self.request.format or (
      self.by_default if place == STDIN else _format_of(place)
    )
    if form is None:
      form = self.by_default
    if form != "lines":
      return self.table(place, form)
    if place == STDIN:
      return self.lines(sys.stdin, _STDIN_NAME)
    path = textfiles.find(place)
    lines = textfiles.lines(path)
    if not lines:
      raise ValueError(f"{place} is empty")
    return self.lines(lines, str(path))

  def lines(self, lines: Iterable[str] | TextIO, name: str) -> Iterator[Item]:
    """Yields the inputs of lines; their ends are removed."""
    number = 0
    for number, line in enumerate(lines, start=1):
      text = line.removesuffix("\n").removesuffix("\r")
      yield from self.line(text, f"{name}, line {number}")
    if not number:
      raise ValueError(f"{name} is empty")

  def table(self, place: str, form: str) -> Iterable[Item]:
    """Returns the inputs in a table."""
    if place != STDIN:
      table = self.read_table(place, form)
      return self.rows(dataclasses.replace(table, name=place))
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / f"{_STDIN_NAME}.{form}"
      path.write_text(sys.stdin.read(), "utf-8")
      try:
        table = self.read_table(str(path), form)
      except ValueError as error:
        raise ValueError(f"{error}".replace(str(path), _STDIN_NAME)) from error
    return self.rows(dataclasses.replace(table, name=_STDIN_NAME))

  def read_table(self, path: str, form: str) -> Table:
    """Reads the columns of a table that make inputs."""
    return read_table(path, form, self.names(), self.family.label)

  def rows(self, table: Table) -> Iterator[Item]:
    """Yields the inputs in the rows of a table."""
    if not len(table):
      raise ValueError(f"{table.name} has no rows")
    for row in range(len(table)):
      yield self.row(table, row)


class _Texts(_Finder):
  """Texts: each in a file, in a row of a table, or in a line."""

  endings = (".txt",)

  def other(self, place: str, path: pathlib.Path) -> Iterable[Item]:
    """Finds a file, or else takes an argument for a text itself."""
    if path.exists():
      return self.file(path)
    if not _is_path(place):
      return self.in_place([place])
    raise FileNotFoundError(
      f"there is no file {place}; --text={place!r} takes it for a text"
    )

  def file(self, path: pathlib.Path) -> Iterable[Item]:
    """Returns the text in a file, or those in a table."""
    if _format_of(str(path)) in TABLES:
      return self.table(str(path), _format_of(str(path)) or "")
    self._check_single(str(path))

    def read():
      return (textfiles.read(textfiles.find(str(path))),)

    return [Item(str(path), str(path), read)]

  def _check_single(self, name: str) -> None:
    if len(self.names()) > 1:
      raise ValueError(
        f"the model reads pairs ({', '.join(self.names())}), not single texts"
        f" such as {name}: give tables, or --text twice for each pair"
      )

  def in_place(self, texts: Sequence[str]) -> list[Item]:
    """See ``_Finder``; pairs follow one another."""
    size = max(len(self.names()), 1)
    if len(texts) % size:
      raise ValueError(
        f"the model reads pairs ({', '.join(self.names())}), but there are"
        f" {len(texts)} texts: give two for each pair"
      )
    pairs = [tuple(texts[i : i + size]) for i in range(0, len(texts), size)]
    return [_text_item(f"text {i}", pair) for i, pair in enumerate(pairs, 1)]

  def line(self, line: str, name: str) -> list[Item]:
    """Returns the text in a line, or the pair around its tab."""
    size = max(len(self.names()), 1)
    texts = (line,) if size == 1 else tuple(line.split("\t"))
    if len(texts) != size:
      raise ValueError(
        f"{name} has {len(texts)} texts; the model reads pairs"
        f" ({', '.join(self.names())}) with a tab between them"
      )
    return [_text_item(name, texts)]

  def row(self, table: Table, row: int) -> Item:
    """See ``_Finder``."""
    texts = tuple(table.columns[name][row] for name in self.names())
    return _text_item(table.place(row), texts)


class _Arrays(_Finder):
  """Arrays in .npz files."""

  def archive(self, path: pathlib.Path) -> Iterator[Item]:
    """Yields the arrays in a .npz file."""
    with npz.open_archive(textfiles.find(str(path))) as (members, _):
      name = next((m for m in _MEMBERS if m in members), None)
      if name is None and len(members) == 1:
        (name,) = members
      if name is None:
        raise ValueError(
          f"{path} has none of the members {', '.join(_MEMBERS)}; it has"
          f" {', '.join(members)}"
        )
      inputs = members[name]
    if inputs.ndim < 2 or not len(inputs):
      raise ValueError(
        f"{path}: {name} must be [n, ...] and not empty, its shape is"
        f" {list(inputs.shape)}"
      )
    for i, row in enumerate(inputs):
      place = f"{path}, {name}[{i}]"
      yield Item(place, place, functools.partial(_same, row))


class _Pictures(_Arrays):
  """Pictures in files, or arrays."""

  endings = pictures.ENDINGS

  def file(self, path: pathlib.Path) -> Iterable[Item]:
    """See ``_Finder``."""
    if path.suffix.lower() == ".npz":
      return self.archive(path)
    if _format_of(str(path)) is not None:
      raise ValueError(
        f"the model reads pictures, which {path} is not; a list of pictures is"
        f" --inputs={path}"
      )
    return [Item(str(path), str(path), lambda: self.family.read_picture(path))]

  def line(self, line: str, name: str) -> Iterable[Item]:
    """See ``_Finder``."""
    return self.place(line)


class _Features(_Arrays):
  """Rows of features, in tables or arrays."""

  by_default = "csv"
  endings = (*(f".{form}" for form in TABLES), ".npz")

  def file(self, path: pathlib.Path) -> Iterable[Item]:
    """See ``_Finder``."""
    if path.suffix.lower() == ".npz":
      return self.archive(path)
    form = _format_of(str(path))
    if form not in TABLES:
      raise ValueError(
        f"the model reads rows of features; {path} is no table"
        f" ({', '.join(f'.{name}' for name in TABLES)}) and no .npz file"
      )
    return self.table(str(path), form)

  def row(self, table: Table, row: int) -> Item:
    """See ``_Finder``."""
    place = table.place(row)

    def read():
      values = [_number(table, name, row) for name in table.columns]
      return np.array(values, np.float32)

    return Item(place, place, read)


_FINDERS: dict[str, type[_Finder]] = {
  "texts": _Texts,
  "pictures": _Pictures,
  "features": _Features,
}


def read_table(
  path: str, form: str, names: Sequence[str], label: str | None = None
) -> Table:
  """Reads columns of a table.

  Args:
    path: the file.
    form: its format, in ``TABLES``.
    names: the columns; none for all but the label.
    label: a column that is not read unless it is named.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is damaged, or lacks a column; names those there are.
  """
  reader, _ = registry.find("labeled texts", f"file:table.{form}")
  table = reader(path, splits.NO_CUTS).splits["train"]
  if not names:
    names = [name for name in _all_names(table) if name != label]
  return table.read(*names, hint="--column names what to read")


def _all_names(table: Table | Records) -> Sequence[str]:
  if isinstance(table, Table):
    return tuple(table.columns)
  return tuple(table.records[0]) if len(table) else ()


def _format_of(path: str) -> str | None:
  """Returns the format that a file's name tells; ``None`` for none."""
  pure = pathlib.PurePath(path)
  if pure.suffix in _PACKED:
    pure = pure.with_suffix("")
  form = pure.suffix.lower().removeprefix(".")
  if form == "txt":
    return "lines"
  return form if form in TABLES else None


def _is_path(text: str) -> bool:
  """Whether an argument is meant for a path: one word with a slash or ending.

  Such a text is given by ``--text``.
  """
  ending = pathlib.PurePath(text).suffix
  is_word = not any(map(str.isspace, text))
  return is_word and ("/" in text or (ending != "" and ending != "."))


def _text_item(name: str, texts: tuple[Any, ...]) -> Item:
  """Returns the input that one or two texts make."""

  def read():
    for text in texts:
      if not isinstance(text, str):
        raise ValueError(f"it is {text!r}, not a text")
    return texts

  return Item(name, texts[0] if len(texts) == 1 else list(texts), read)


def _number(table: Table, name: str, row: int) -> float:
  value = table.columns[name][row]
  try:
    return float(value)
  except (TypeError, ValueError) as error:
    raise ValueError(f"{name} is {value!r}, not a number") from error


def _same(value: Any) -> Any:
  return value
