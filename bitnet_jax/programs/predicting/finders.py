"""Finds the inputs that a command line names, for each kind of model."""

import functools
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bitnet_jax import choices
from bitnet_jax.data.sources import npz, pictures, textfiles
from bitnet_jax.data.sources.tables import Table
from bitnet_jax.programs.predicting.families import Family
from bitnet_jax.programs.predicting.inputs import (
  TABLES,
  Finder,
  Item,
  Request,
  format_of,
)

# Members of a .npz file that hold inputs; the first that is there is read.
_MEMBERS = ("inputs", "x", "x_test")


def find(request: Request, family: Family) -> Iterable[Item]:
  """Returns the inputs of a request, in its order; they are read later.

  First come ``places``, then ``texts``, then ``lists``.

  Raises:
    FileNotFoundError: if a list has no file.
    ValueError: for inputs that the model does not take.
  """
  request.check()
  finder = FINDERS[family.reads](request, family)
  if request.is_empty:
    return finder.everything()
  parts = [finder.place(place) for place in request.places]
  if request.texts:
    parts.append(finder.in_place(request.texts))
  parts += [finder.listed(place) for place in request.lists]
  return itertools.chain.from_iterable(parts)


class Texts(Finder):
  """Texts: each in a file, in a row of a table, or in a line."""

  endings = (".txt",)

  def absent(self, place: str) -> Iterable[Item]:
    """Takes an argument for a text itself, unless it looks like a path."""
    if not _is_path(place):
      return self.in_place([place])
    raise FileNotFoundError(
      f"there is no file {place}; --text={place!r} takes it for a text"
    )

  def file(self, path: pathlib.Path) -> Iterable[Item]:
    """Returns the text in a file, or those in a table."""
    form, name = format_of(str(path)), str(path)
    if form in TABLES:
      return self.rows(self.table(name, form))
    if name.lower().endswith((*pictures.ENDINGS, ".npz")):
      raise ValueError(f"the model reads texts; {name} is a picture or arrays")
    if len(self.names()) > 1:
      raise ValueError(
        f"the model reads pairs ({', '.join(self.names())}), not single texts"
        f" such as {name}: give tables, or --text twice for each pair"
      )

    def read() -> tuple[str]:
      return (textfiles.read(textfiles.find(name)),)

    return [Item(name, name, read)]

  def in_place(self, texts: Sequence[str]) -> list[Item]:
    """See ``Finder``; the texts of a pair follow one another."""
    size = max(len(self.names()), 1)
    if len(texts) % size:
      raise ValueError(
        f"the model reads pairs ({', '.join(self.names())}): give two texts for"
        f" each pair, not {len(texts)} in all"
      )
    groups = [tuple(texts[i : i + size]) for i in range(0, len(texts), size)]
    return [_text_item(repr(group[0])[:40], group) for group in groups]

  def line(self, line: str, name: str) -> list[Item]:
    """Returns the text in a line, or the pair around its tab."""
    size = max(len(self.names()), 1)
    texts = (line,) if size == 1 else tuple(line.split("\t"))
    if len(texts) != size:
      raise ValueError(
        f"{name}: {len(texts)} texts; the model reads pairs"
        f" ({', '.join(self.names())}), with a tab between them"
      )
    return [_text_item(name, texts)]

  def row(self, table: Table, row: int) -> Item:
    """See ``Finder``."""
    texts = tuple(table.columns[name][row] for name in self.names())
    return _text_item(table.place(row), texts)


class Arrays(Finder):
  """Arrays in .npz files; those of a file follow one another."""

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


class Pictures(Arrays):
  """Pictures in files, or arrays."""

  endings = pictures.ENDINGS

  def file(self, path: pathlib.Path) -> Iterable[Item]:
    """See ``Finder``."""
    if path.suffix.lower() == ".npz":
      return self.archive(path)
    if format_of(str(path)) is not None:
      raise ValueError(
        f"the model reads pictures, which {path} is not; a list of pictures is"
        f" --inputs={path}"
      )
    read = functools.partial(self.family.read_picture, path)
    return [Item(str(path), str(path), read)]


class Features(Arrays):
  """Rows of features, in tables or arrays."""

  by_default = "csv"
  endings = (*(f".{form}" for form in TABLES), ".npz")

  def file(self, path: pathlib.Path) -> Iterable[Item]:
    """See ``Finder``."""
    if path.suffix.lower() == ".npz":
      return self.archive(path)
    form = format_of(str(path))
    if form not in TABLES:
      raise ValueError(
        f"the model reads rows of features; {path} does not end in"
        f" {', '.join(self.endings)}"
      )
    return self.rows(self.table(str(path), form))

  def row(self, table: Table, row: int) -> Item:
    """See ``Finder``."""
    place = table.place(row)

    def read() -> np.ndarray:
      values = [_number(table, name, row) for name in table.columns]
      return np.array(values, np.float32)

    return Item(place, place, read)


class Graphs(Finder):
  """Graphs, each in a .npz file."""

  endings = (".npz",)

  def file(self, path: pathlib.Path) -> list[Item]:
    """See ``Finder``."""
    if path.suffix.lower() != ".npz":
      raise ValueError(f"the model reads graphs, in .npz files; not {path}")

    def read() -> dict[str, np.ndarray]:
      with npz.open_archive(textfiles.find(str(path))) as (members, _):
        return dict(members)

    return [Item(str(path), str(path), read)]


class Nodes(Finder):
  """Nodes of the graph of a run, by name or number."""

  @functools.cached_property
  def _numbers(self) -> dict[str, int]:
    names: Any = self.family
    return {name: i for i, name in enumerate(names.node_names())}

  def everything(self) -> list[Item]:
    """Returns all nodes."""
    return [self._item(name) for name in self._numbers]

  def place(self, place: str) -> Iterable[Item]:
    """Returns a node, or those of standard input."""
    return self.listed(place) if place == "-" else [self._item(place)]

  def _item(self, name: str) -> Item:
    def read() -> int:
      if name not in self._numbers:
        near = choices.nearest(name, self._numbers)
        raise ValueError(f"the graph has no node {name!r}{near}")
      return self._numbers[name]

    return Item(f"node {name}", name, read)


FINDERS: dict[str, type[Finder]] = {
  "features": Features,
  "graphs": Graphs,
  "nodes": Nodes,
  "pictures": Pictures,
  "texts": Texts,
}


def _is_path(text: str) -> bool:
  """Whether an argument is meant for a path: one word with a slash or ending.

  Such a text is given by ``--text``.
  """
  is_word = not any(map(str.isspace, text))
  return is_word and ("/" in text or pathlib.PurePath(text).suffix != "")


def _text_item(name: str, texts: tuple[Any, ...]) -> Item:
  """Returns the input that one or two texts make."""

  def read() -> tuple[Any, ...]:
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
