"""Finds the files in a folder with one subfolder for each class."""

import dataclasses
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from bitnet_jax import choices
from bitnet_jax.data import splits

# Splits by the names of their folders, in lower case.
_SPLITS = {
  "train": "train",
  "training": "train",
  "valid": "valid",
  "val": "valid",
  "validation": "valid",
  "test": "test",
  "testing": "test",
}
# What systems leave behind, in lower case.
_LEFT_BEHIND = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir")
_LISTED = 5  # names in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassFiles:
  """The files of a split, sorted by class and name.

  Attributes:
    root: the folder whose subfolders are the classes.
    files: paths of the files.
    labels: int64 [n], the class of each file.
  """

  root: pathlib.Path
  files: Sequence[pathlib.Path]
  labels: np.ndarray

  def names(self) -> list[str]:
    """Returns the names of the files, relative to the root."""
    names = [f.relative_to(self.root).as_posix() for f in self.files]
    return [os.fsencode(spelled(n)).decode(errors="replace") for n in names]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
  """The splits of a folder.

  Attributes:
    splits: by name, "train" among them.
    classes: names of the classes, sorted, the same in all splits.
  """

  splits: Mapping[str, ClassFiles]
  classes: tuple[str, ...]


def find(path: str, where: str, endings: tuple[str, ...]) -> Found:
  """Finds the files of each class and split.

  The subfolders of a folder are its classes, or they are "train", "valid" and
  "test" (also "val", "validation", "training" and "testing", in any case) with
  the classes inside. A class may have subfolders of its own. Symbolic links are
  followed. Hidden files and those that systems leave behind are skipped; other
  files without one of the endings are skipped with a warning. Names that
  Unicode spells in two ways are the same.

  Args:
    path: the folder; a leading `~` is the home folder.
    where: names the source in messages.
    endings: of the names of the files to find, in lower case.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: there are fewer than two classes, a class without files, classes
      whose names differ in case only, or a class that "train" lacks.
  """
  root = find_folder(path, where)
  roots = _split_roots(root, where)
  left_out: list[pathlib.Path] = []
  found = {
    key: _classes_of(folder, where, endings, left_out)
    for key, folder in roots.items()
  }
  classes = tuple(sorted(found["train"]))
  _check_number(classes, roots["train"], where)
  for key, there in found.items():
    _check_known(key, sorted(there), classes, where)
  if left_out:
    logging.warning(
      "%s: %d other files are left out, such as %s; files of classes end in %s",
      where,
      len(left_out),
      left_out[0],
      ", ".join(endings),
    )
  return Found(
    splits={
      key: ClassFiles(
        root=roots[key],
        files=[file for name in classes for file in there.get(name, ())],
        labels=np.repeat(
          np.arange(len(classes)), [len(there.get(n, ())) for n in classes]
        ),
      )
      for key, there in found.items()
    },
    classes=classes,
  )


def find_folder(path: str, where: str) -> pathlib.Path:
  """Returns the absolute path of a folder; a leading `~` is the home folder.

  Raises:
    FileNotFoundError: it does not exist; names the first part that does not,
      and the nearest name beside it.
    ValueError: it is an address, or a file.
  """
  if "://" in path:
    raise ValueError(f"{where} is an address; copy it to a local folder first")
  folder = pathlib.Path(path).expanduser().absolute()
  if folder.is_dir():
    return folder
  if folder.is_file():
    raise ValueError(
      f"{where} is a file, not a folder; unpack it if it is an archive"
    )
  missing = folder
  while not missing.parent.is_dir():
    missing = missing.parent
  beside = sorted(p.name for p in missing.parent.iterdir() if p.is_dir())
  raise FileNotFoundError(
    f"there is no folder {missing}{choices.nearest(missing.name, beside)}"
  )


def spelled(name: str) -> str:
  """Returns a name in the spelling of Unicode that all systems can share."""
  return unicodedata.normalize("NFC", name)


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns what a folder holds, sorted, without hidden names."""
  found = [
    path
    for path in folder.iterdir()
    if not path.name.startswith(".") and path.name.lower() not in _LEFT_BEHIND
  ]
  return sorted(found, key=lambda path: spelled(path.name))


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
  return [path for path in _visible(folder) if path.is_dir()]


def _split_roots(root: pathlib.Path, where: str) -> dict[str, pathlib.Path]:
  """Returns the folder of each split; "train" is the root if it has none."""
  inner = _folders(root)
  named = [path for path in inner if path.name.lower() in _SPLITS]
  train = [p for p in named if _SPLITS[p.name.lower()] == "train"]
  is_split = len(named) == len(inner) or any(map(_folders, train))
  if not named or not is_split:
    return {"train": root}
  others = [path.name for path in inner if path not in named]
  if others:
    raise ValueError(
      f"{where} has {listed([p.name for p in named])} for splits, but"
      f" {listed(others)} as well; move the classes into the splits, and what"
      " is no class elsewhere"
    )
  roots: dict[str, pathlib.Path] = {}
  for path in named:
    key = _SPLITS[path.name.lower()]
    if key in roots:
      raise ValueError(
        f"{where} has both {roots[key].name} and {path.name}; keep one as {key}"
      )
    roots[key] = path
  if "train" not in roots:
    raise ValueError(
      f"{where} has {listed([p.name for p in named])}, but no folder train"
    )
  return {key: roots[key] for key in splits.NAMES if key in roots}


def _classes_of(
  root: pathlib.Path,
  where: str,
  endings: tuple[str, ...],
  left_out: list[pathlib.Path],
) -> dict[str, list[pathlib.Path]]:
  """Returns the files of each class of a split; adds those left out."""
  found: dict[str, list[pathlib.Path]] = {}
  folders: dict[str, pathlib.Path] = {}
  loose = [path for path in _visible(root) if not path.is_dir()]
  for folder in _folders(root):
    name = spelled(folder.name)
    same = folders.setdefault(name.casefold(), folder)
    if same != folder:
      raise ValueError(
        f"{where} has the classes {same.name!r} and {folder.name!r} in {root},"
        " whose names differ in case or spelling only; rename or merge them"
      )
    try:
      name.encode()
    except UnicodeEncodeError as error:
      raise ValueError(
        f"{where}: the name of the class {folder.name!r} is not UTF-8; rename"
        " the folder"
      ) from error
    files, others = [], []
    for file in files_in(folder):
      of_class = file.name.lower().endswith(endings)
      (files if of_class else others).append(file)
    if not files:
      but = f", only others such as {others[0].name}" if others else ""
      raise ValueError(
        f"{where}: the folder {folder} has no file that ends in"
        f" {', '.join(endings)}{but}; add some, or remove the folder"
      )
    found[name] = files
    left_out += others
  if not found:
    those = [p for p in loose if p.name.lower().endswith(endings)]
    what = f" files such as {those[0].name}, but" if those else ""
    raise ValueError(
      f"{where}: {root} has{what} no folders of classes; put the files of each"
      f" class into a folder of its name, such as cats/1{endings[0]}"
    )
  left_out += loose
  return found


def files_in(
  folder: pathlib.Path, above: tuple[pathlib.Path, ...] = ()
) -> Iterator[pathlib.Path]:
  """Yields the files in a folder and its subfolders, sorted by name.

  Hidden files and those that systems leave behind are skipped, and links are
  followed.

  Args:
    folder: the folder.
    above: folders that are not entered again.
  """
  real = folder.resolve()
  if real in above:  # A link leads back to a folder that contains it.
    return
  for path in _visible(folder):
    if path.is_dir():
      yield from files_in(path, (*above, real))
    else:
      yield path


def _check_number(classes, root, where) -> None:
  """Raises a ValueError for a single class."""
  if len(classes) > 1:
    return
  (only,) = _folders(root)
  hint = ""
  if len(_folders(only)) > 1:
    hint = "; if its folders are the classes, the source is"
    hint += f" {where.partition(':')[0]}:{only}"
  raise ValueError(
    f"{where} has one class, {classes[0]!r}, but a classifier needs two or"
    f" more{hint}"
  )


def _check_known(key, there, classes, where) -> None:
  """Raises a ValueError for a class that the training split lacks."""
  unknown = [name for name in there if name not in classes]
  if unknown:
    raise ValueError(
      f"{where}: {key} has the class {unknown[0]!r}, which train lacks; train"
      f" has {listed(classes)}{choices.nearest(unknown[0], classes)}"
    )


def listed(names: Sequence[str]) -> str:
  """Returns the first names, and how many more there are, for messages."""
  rest = "" if len(names) <= _LISTED else f" and {len(names) - _LISTED} more"
  return f"{', '.join(names[:_LISTED])}{rest}"
