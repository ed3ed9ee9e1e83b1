"""Reads labeled documents in the files of TextGCN (Yao et al., 2019)."""

import pathlib

from bitnet_jax.data import splits
from bitnet_jax.data.sources import textfiles
from bitnet_jax.data.sources.tables import Source, Table


def read(name: str, cuts: splits.Cuts) -> Source:
  """Reads documents and their index, which may be compressed.

  Args:
    name: `FOLDER/NAME.clean` for the documents in FOLDER/NAME.clean.txt, one
      per line, and FOLDER/NAME.index.tsv, whose lines are an id, "train" or
      "test", and a class, separated by tabs; `.raw` likewise.
    cuts: for other names of the splits in the index.

  Returns:
    Tables with the columns "text" and "label".

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a document is empty, or the index is wrong; names the line.
  """
  base = name.rpartition(".")[0]
  documents = _lines(f"{name}.txt", "text")
  index = _lines(f"{base}.index.tsv", "index")
  texts = documents.texts("text")
  if len(index) != len(texts):
    raise ValueError(
      f"{documents.name} has {len(texts)} lines, but {index.name} has"
      f" {len(index)}"
    )
  rows: dict[str, list[int]] = {}
  labels = []
  for row, line in enumerate(index.columns["index"]):
    fields = line.split("\t")
    if len(fields) != 3:
      raise ValueError(
        f"{index.place(row)}: {len(fields)} fields, not id, split and label"
      )
    rows.setdefault(fields[1], []).append(row)
    labels.append(fields[2])
  names = {"train": "train", "test": "test"} | dict(cuts.split_names)
  if rows.keys() ^ names.values():
    raise ValueError(
      f"{index.name} has the splits {', '.join(rows)}, not"
      f" {', '.join(names.values())}; split_names tells what they are called"
    )
  whole = Table(columns={"text": texts, "label": labels}, name=index.name)
  return Source(
    splits={key: whole.take(rows[there]) for key, there in names.items()},
    texts=("text",),
    label="label",
  )


def _lines(path, column):
  """Reads the lines of a file, which may be compressed."""
  packed = [f"{path}.gz", f"{path}.xz"]
  there = [p for p in packed if pathlib.Path(p).expanduser().is_file()]
  file = textfiles.find((*there, path)[0])
  return Table(columns={column: textfiles.lines(file)}, name=str(file))
