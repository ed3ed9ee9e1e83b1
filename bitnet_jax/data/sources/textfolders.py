"""Reads folders of text files, and globs of them without an ending."""

import pathlib
from collections.abc import Callable

from absl import logging

from bitnet_jax.data import splits
from bitnet_jax.data.sources import class_folders, paths, tables, textfiles
from bitnet_jax.data.sources.tables import Source, Table, listed

_PACKED = ("", ".gz", ".xz")
ENDINGS = tuple(f"{end}{p}" for end in (".txt", ".md") for p in _PACKED)
_TABLES = (
  ".parquet",
  *(f"{end}{p}" for end in (".csv", ".tsv", ".jsonl") for p in _PACKED),
)


def read_documents(
  path: str,
  cuts: splits.Cuts,
  cut: Callable[[str, str], Table] = textfiles.whole,
) -> Source:
  """Reads the text files in a folder and its subfolders, sorted by name.

  The folder may hold a folder for each split, see `textfiles.find_splits`.
  Files that end in none of `ENDINGS` are left out with a warning.

  Args:
    path: the folder, with `{split}` in place of the name of a split or not.
    cuts: for names of splits.
    cut: makes a table of the text and the name of a file.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: it holds no text files, or one of them is wrong.
  """
  names = dict(cuts.split_names)
  if "{split}" not in path:
    root = class_folders.find_folder(path, f"file:{path}")
    if names or (root / "train").is_dir():
      _warn_beside(root)
      path = f"{path}/{{split}}"
  roots = textfiles.find_splits(path, names, is_there=_is_folder)
  return Source(
    splits={
      key: tables.join(
        [cut(textfiles.read(file), str(file)) for file in _files(root)], root
      )
      for key, root in roots.items()
    }
  )


def read_glob(
  path: str,
  cuts: splits.Cuts,
  cut: Callable[[str, str], Table] = textfiles.whole,
) -> Source:
  """Reads the files that a glob matches, which must be texts, whatever ends.

  Raises:
    FileNotFoundError: there are none.
    ValueError: some are tables, or one of them is wrong.
  """
  there = textfiles.find_splits(path, dict(cuts.split_names))
  for matched in there.values():
    found = paths.find_files(matched)
    ends = sorted({end for f in found if (end := _table_ending(f))})
    if ends:
      raise ValueError(
        f"{matched} matches tables, such as {found[0].name}; a glob with an"
        f" ending reads files of one kind: {matched.rstrip('*')}*{ends[0]}"
      )
  return textfiles.read_whole(path, cuts, cut)


def read_labeled(path: str, cuts: splits.Cuts) -> Source:
  """Reads a folder with one subfolder of text files for each class.

  The classes may be in folders for the splits; see `class_folders.find`. The
  line feed at the end of a file is no part of its text.

  Returns:
    Tables with the columns "text" and "label", the name of the class.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: the folders are wrong, or one of the files.
  """
  where = f"file:{path}"
  if cuts.split_names or "{split}" in path:
    raise ValueError(
      f"{where}: a folder of classes takes neither split_names nor {{split}};"
      " name the folder that holds train, valid and test"
    )
  found = class_folders.find(path, where, ENDINGS)
  for key, own in found.splits.items():
    there = {*own.labels.tolist()}
    absent = [n for i, n in enumerate(found.classes) if i not in there]
    if absent:
      logging.warning(
        "%s: %s has no texts of the classes %s; what is no class must be moved"
        " elsewhere",
        where,
        key,
        listed(absent),
      )
  return Source(
    splits={
      key: Table(
        columns={
          "text": [textfiles.read(f).removesuffix("\n") for f in own.files],
          "label": [found.classes[i] for i in own.labels],
        },
        name=str(own.root),
        unit="file",
        places=own.names(),
      )
      for key, own in found.splits.items()
    },
    texts=("text",),
    label="label",
  )


def _is_folder(path: str) -> bool:
  return pathlib.Path(path).expanduser().is_dir()


def _warn_beside(root: pathlib.Path) -> None:
  """Logs text files beside the folders of splits, which are not read."""
  beside = [f.name for f in sorted(root.iterdir()) if _is_text(f)]
  if beside:
    logging.warning(
      "%s has folders of splits; %d files beside them are left out: %s",
      root,
      len(beside),
      listed(beside),
    )


def _is_text(file: pathlib.Path) -> bool:
  return file.is_file() and file.name.lower().endswith(ENDINGS)


def _table_ending(file: pathlib.Path) -> str:
  return next((end for end in _TABLES if file.name.endswith(end)), "")


def _files(root: str) -> list[pathlib.Path]:
  """Returns the text files in a folder; warns of others."""
  folder = class_folders.find_folder(root, f"file:{root}")
  there = list(class_folders.files_in(folder))
  found = [file for file in there if file.name.lower().endswith(ENDINGS)]
  others = [f for f in there if not f.name.lower().endswith(ENDINGS)]
  if not found:
    ends = sorted({end for file in others if (end := _table_ending(file))})
    hint = f"; file:{root}/*{ends[0]} reads tables" if ends else ""
    raise ValueError(
      f"{folder} has no files that end in {', '.join(ENDINGS)}, but"
      f" {listed([f.name for f in others]) or 'nothing'}{hint}"
    )
  if others:
    logging.warning(
      "%s: %d files that do not end in %s are left out: %s",
      folder,
      len(others),
      ", ".join(ENDINGS),
      listed([file.relative_to(folder).as_posix() for file in others]),
    )
  return found
