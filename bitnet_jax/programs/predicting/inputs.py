"""The inputs of a command line, and how files of several inputs are read."""

import dataclasses
import glob
import itertools
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from bitnet_jax import choices
from bitnet_jax.data import splits
from bitnet_jax.data.sources import class_folders, registry, textfiles
from bitnet_jax.data.sources.tables import Records, Table
from bitnet_jax.programs.predicting.families import Family

STDIN, STDIN_NAME = "-", "standard input"
# Formats of files with several inputs.
TABLES = ("csv", "tsv", "jsonl", "parquet")
FORMATS = ("lines", *TABLES)
_PACKED = (".gz", ".xz")
_GLOB = "*?["


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """The inputs that a command line names.

  Attributes:
    places: files, folders, patterns, texts, nodes, or ``STDIN``.
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

  @property
  def is_empty(self) -> bool:
    """Whether it names no input."""
    return not (self.places or self.lists or self.texts)

  def check(self) -> None:
    """Raises a ValueError if it names an input that cannot be read."""
    if self.format is not None:
      choices.check(self.format, FORMATS, key="--format")
    given = [*self.places, *self.lists]
    if given.count(STDIN) > 1:
      raise ValueError(f"{STDIN} ({STDIN_NAME}) is given twice")
    if STDIN in given and sys.stdin.isatty():
      raise ValueError(
        f"{STDIN} reads {STDIN_NAME}, which is a terminal: pipe inputs into it"
      )


@dataclasses.dataclass(frozen=True)
class Item:
  """One input.

  Attributes:
    name: where it stands, for messages.
    shown: what output calls it: its place, or the text or texts.
    read: reads it: an array, a tuple of texts, the arrays of a graph, or the
      number of a node. It raises an OSError or a ValueError for what cannot be
      read.
  """

  name: str
  shown: Any
  read: Callable[[], Any]


class Finder:
  """Finds inputs of one kind; each method returns those of an argument.

  Attributes:
    endings: endings of the names of files that are read in a folder.
    by_default: format of standard input, and of lists whose name tells none.
  """

  endings: tuple[str, ...] = ()
  by_default = "lines"

  def __init__(self, request: Request, family: Family):
    self.request, self.family = request, family

  def everything(self) -> Iterable[Item]:
    """Returns the inputs of a request that names none.

    Raises:
      ValueError: unless there is a usual choice.
    """
    raise ValueError(
      "there is no input: give files, folders or texts, --inputs=FILE with one"
      f" a line, or {STDIN} for {STDIN_NAME}"
    )

  def place(self, place: str) -> Iterable[Item]:
    """Returns those of a file, a folder, a pattern or standard input."""
    if place == STDIN:
      return self.listed(place)
    path = _existing(place)
    if path is None:
      if any(sign in place for sign in _GLOB):
        if found := sorted(glob.glob(place, recursive=True)):
          return self.files(map(pathlib.Path, found))
      return self.absent(place)
    if path.is_dir():
      return self.files(self.in_folder(path))
    return self.file(path)

  def absent(self, place: str) -> Iterable[Item]:
    """Returns those of an argument that is no file."""
    if not place or place.isspace():
      raise ValueError("an input is empty: it must name a file or a folder")
    return self.file(pathlib.Path(place))

  def in_folder(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of a folder and the folders in it, in order.

    Raises:
      ValueError: if there is none.
    """
    found = [
      file
      for file in class_folders.files_in(folder)
      if file.name.lower().endswith(self.endings)
    ]
    if not found:
      raise ValueError(
        f"the folder {folder} holds no file that ends in"
        f" {', '.join(self.endings)}, which the model could read"
      )
    return found

  def files(self, paths: Iterable[pathlib.Path]) -> Iterable[Item]:
    """Returns those of files, one after the other."""
    return itertools.chain.from_iterable(map(self.file, paths))

  def file(self, path: pathlib.Path) -> Iterable[Item]:
    """Returns those of a file."""
    raise ValueError(f"the model reads {self.family.reads}, not files")

  def row(self, table: Table, row: int) -> Item:
    """Returns that of a row of a table."""
    raise ValueError(f"the model reads {self.family.reads}, not tables")

  def line(self, line: str, name: str) -> Iterable[Item]:
    """Returns those that a line names.

    Args:
      line: without its end.
      name: where it stands.
    """
    del name
    return self.place(line)

  def names(self) -> tuple[str, ...]:
    """Returns the columns of a table to read; none if they are not known."""
    return tuple(self.request.columns) or self.family.columns

  def in_place(self, texts: Sequence[str]) -> Iterable[Item]:
    """Returns texts that are given themselves."""
    raise ValueError(f"the model reads {self.family.reads}, not texts (--text)")

  def listed(self, place: str) -> Iterable[Item]:
    """Returns those of a file of several, or of standard input."""
    form = self.request.format
    if form is None and place != STDIN:
      form = format_of(place)
    form = form or self.by_default
    if form != "lines":
      return self.rows(self.table(place, form))
    if place == STDIN:
      return self.lines(sys.stdin, STDIN_NAME)
    return self.lines(textfiles.lines(textfiles.find(place)), place)

  def lines(self, lines: Iterable[str], name: str) -> Iterator[Item]:
    """Yields those of lines, which may still have their ends."""
    number = 0
    for number, line in enumerate(lines, start=1):
      text = line.removesuffix("\n").removesuffix("\r")
      yield from self.line(text, f"{name}, line {number}")
    if not number:
      raise ValueError(f"{name} is empty")

  def rows(self, table: Table) -> Iterator[Item]:
    """Yields those of the rows of a table."""
    if not len(table):
      raise ValueError(f"{table.name} has no rows")
    for row in range(len(table)):
      yield self.row(table, row)

  def table(self, place: str, form: str) -> Table:
    """Reads the columns of a table that make inputs."""
    if place != STDIN:
      table = read_table(place, form, self.names(), self.family.label)
      return dataclasses.replace(table, name=place)
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / f"table.{form}"
      path.write_bytes(sys.stdin.buffer.read())
      try:
        table = read_table(f"{path}", form, self.names(), self.family.label)
      except ValueError as error:
        raise ValueError(f"{error}".replace(str(path), STDIN_NAME)) from error
    return dataclasses.replace(table, name=STDIN_NAME)


def _existing(place: str) -> pathlib.Path | None:
  """Returns the path of an argument; ``None`` if there is no such file."""
  try:
    path = pathlib.Path(place).expanduser()
    return path if place.strip() and path.exists() else None
  except (OSError, RuntimeError, ValueError):  # No path, such as a long text.
    return None


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


def format_of(path: str) -> str | None:
  """Returns the format that a file's name tells; ``None`` for none."""
  pure = pathlib.PurePath(path)
  if pure.suffix in _PACKED:
    pure = pure.with_suffix("")
  form = pure.suffix.lower().removeprefix(".")
  if form == "txt":
    return "lines"
  return form if form in TABLES else None
