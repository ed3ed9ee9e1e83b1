"""Texts and pairs of texts with a class or a number each."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from bitnet_jax import choices
from bitnet_jax.data import splits
from bitnet_jax.data.sources import docstrings, tables, textfiles
from bitnet_jax.data.views import documents as text

_SCHEMES = (
  "embedded:docstrings, file:PATH.tsv or .jsonl, textgcn:FOLDER/NAME.raw or"
  " .clean, and tfds:NAME"
)
# Columns of the texts of GLUE, by task.
_GLUE = {
  "ax": ("premise", "hypothesis"),
  "cola": ("sentence",),
  "mnli": ("premise", "hypothesis"),
  "mnli_matched": ("premise", "hypothesis"),
  "mnli_mismatched": ("premise", "hypothesis"),
  "mrpc": ("sentence1", "sentence2"),
  "qnli": ("question", "sentence"),
  "qqp": ("question1", "question2"),
  "rte": ("sentence1", "sentence2"),
  "sst2": ("sentence",),
  "stsb": ("sentence1", "sentence2"),
  "wnli": ("sentence1", "sentence2"),
}
_PACKED = ("", ".gz", ".xz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledTexts:
  """Examples that are used together.

  Attributes:
    texts: one or two columns, each a list of n texts.
    labels: the class of each example, int32 [n], or a number, float32 [n].
  """

  texts: tuple[list[str], ...]
  labels: np.ndarray

  @property
  def classes(self) -> np.ndarray:
    """The classes; one for all if the labels are numbers."""
    if self.labels.dtype == np.int32:
      return self.labels
    return np.zeros(len(self.labels), np.int32)

  def take(self, rows: np.ndarray) -> "LabelledTexts":
    """Returns the examples where `rows`, bool [n], is true."""
    places = np.flatnonzero(rows)
    return LabelledTexts(
      texts=tuple([column[i] for i in places] for column in self.texts),
      labels=self.labels[rows],
    )

  def __len__(self) -> int:
    return len(self.labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledCorpus:
  """Labelled texts by split.

  Attributes:
    splits: among "train", "valid" and "test"; "train" is always there.
    class_names: names of the classes, empty if the labels are numbers.
    fingerprint: names the examples by content, never by their place.
  """

  splits: dict[str, LabelledTexts]
  class_names: tuple[str, ...]
  fingerprint: str


def load_labelled(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  columns: Sequence[str] = (),
  label: str = "label",
  regression: bool = False,
  class_names: Sequence[str] = (),
) -> LabelledCorpus:
  """Loads labelled texts into memory and completes their splits.

  A split whose labels all are -1, which is how hidden ones are written, is left
  out, which is logged, unless "train" has -1 too. Splits that the source lacks
  are cut from "train", see `splits.Cuts`.

  Args:
    source: `embedded:docstrings`, those of Python's library by their module
      (see `docstrings.read`); `file:PATH` of a `.tsv` with a header or a
      `.jsonl`, packed if `.gz` or `.xz` follows, which may have `{split}` for a
      file a split (see `textfiles.find_splits`); `textgcn:FOLDER/NAME.clean`,
      the documents of FOLDER/NAME.clean.txt, one a line, with
      FOLDER/NAME.index.tsv, whose lines are an id, "train" or "test", and a
      class, separated by tabs (either may be packed); or `tfds:NAME`, a
      prepared set.
    columns: where the texts stand, one or two; needed by `file:`, and by
      `tfds:` but for `glue/*`.
    label: the column of the labels.
    regression: whether labels are numbers.
    class_names: names of the classes in their order; by default those of the
      set, or else the labels of "train", sorted, as integers if they are.
    cuts: name splits, and cut those that the source lacks.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: tensorflow-datasets is not installed.
    ValueError: an argument or something in the data is not as it must be;
      names the line.
  """
  scheme, _, name = source.partition(":")
  choices.check(len(columns), (0, 1, 2), key="number of columns")
  known = name if scheme in ("file", "textgcn", "tfds") else False
  if not known and source != "embedded:docstrings":
    raise ValueError(
      f"unknown source of labelled texts {source!r}; choose among {_SCHEMES}"
    )
  if regression and class_names:
    raise ValueError("regression has no class_names")
  names, columns, given = dict(cuts.split_names), tuple(columns), []
  if scheme == "embedded":
    columns = ("text",)
    found = {"train": docstrings.read(label)}
  elif scheme == "file":
    found = _read_files(name, columns, label, names)
  elif scheme == "textgcn":
    columns = ("text",)
    found = _read_text_gcn(name, label, names)
  else:
    columns = columns or _GLUE.get(name.removeprefix("glue/").split(":")[0], ())
    found, given = _read_set(name, columns, label, names, cuts.data_dir)
  class_names = class_names or given
  found = _without_hidden(source, found, label, class_names)
  if not class_names and not regression:
    class_names = _sorted_names(found["train"].columns[label])
  return _completed(
    source,
    found,
    columns,
    label,
    None if regression else tuple(class_names),
    cuts,
  )


def _completed(source, tables_, columns, label, class_names, cuts):
  """Returns the corpus of tables."""
  found = {}
  for key, table in tables_.items():
    texts = tuple(table.texts(column) for column in columns)
    if class_names is None:
      labels = table.numbers(label)
    else:
      labels = _indices(table, label, class_names)
    if not len(labels):
      raise ValueError(f"{source}: {key} has no example")
    found[key] = LabelledTexts(texts=texts, labels=labels)
  completed = splits.complete(found, cuts, source=source)
  if class_names is not None:
    splits.warn_of_absent(
      completed["train"].labels, num_classes=len(class_names), where=source
    )
  contents = {
    key: [*split.texts, [repr(value) for value in split.labels.tolist()]]
    for key, split in completed.items()
  }
  return LabelledCorpus(
    splits=completed,
    class_names=class_names or (),
    fingerprint=text.fingerprint(contents),
  )


def _read_files(path, columns, label, names):
  """Reads a TSV or JSONL file a split."""
  if textfiles.kind(path) not in tables.KINDS:
    raise ValueError(
      f"file:{path} must end in .tsv or .jsonl, and then .gz or .xz if it is"
      " packed"
    )
  if not columns:
    raise ValueError(f"file:{path} needs columns: where the texts stand")
  return {
    key: tables.read(split, (*columns, label))
    for key, split in textfiles.find_splits(path, names).items()
  }


def _read_text_gcn(name, label, names):
  """Reads documents and their index."""
  base, _, which = name.rpartition(".")
  if which not in ("raw", "clean") or not base:
    raise ValueError(f"textgcn:{name} must end in .raw or .clean")
  documents = tables.read_lines(_packed(f"{name}.txt"), "text")
  index = tables.read_lines(_packed(f"{base}.index.tsv"), "index")
  lines = index.columns["index"]
  if len(lines) != len(documents.columns["text"]):
    raise ValueError(
      f"{documents.name} has {len(documents.columns['text'])} lines, but"
      f" {index.name} has {len(lines)}"
    )
  rows: dict[str, list[int]] = {}
  labels = []
  for row, line in enumerate(lines):
    fields = line.split("\t")
    if len(fields) != 3:
      raise ValueError(
        f"{index.place(row)}: {len(fields)} fields, not id, split and label"
      )
    rows.setdefault(fields[1], []).append(row)
    labels.append(fields[2])
  documents.texts("text")  # checks them while lines are lines of the file
  names = {"train": "train", "test": "test"} | names
  unknown = rows.keys() ^ names.values()
  if unknown:
    raise ValueError(
      f"{index.name} has the splits {', '.join(rows)}, not"
      f" {', '.join(names.values())}; split_names tells what they are called"
    )
  return {
    key: tables.Table(
      columns={
        "text": [documents.columns["text"][i] for i in rows[there]],
        label: [labels[i] for i in rows[there]],
      },
      name=f"{index.name} {there}",
      unit="document",
      first=0,
    )
    for key, there in names.items()
  }


def _packed(path):
  """Returns the path of a file that is packed in one way or none."""
  for ending in _PACKED[1:]:
    try:
      textfiles.find(path + ending)
    except FileNotFoundError:
      continue
    return path + ending
  return path


def _read_set(name, columns, label, names, data_dir):
  """Reads a prepared set; returns tables, and names of the classes if any."""
  if not columns:
    raise ValueError(f"tfds:{name} needs columns: where the texts stand")
  found, features = tables.read_set(
    name, lambda _: (*columns, label), split_names=names, data_dir=data_dir
  )
  class_names = list(getattr(features[label], "names", ()))
  if class_names:
    for key, table in found.items():
      values = [int(value) for value in table.columns[label]]
      values = [class_names[v] if v >= 0 else v for v in values]
      found[key] = dataclasses.replace(
        table, columns={**table.columns, label: values}
      )
  return found, class_names


def _without_hidden(source, found, label, class_names):
  """Returns the splits that have labels: hidden ones are written as -1."""
  hidden = {
    key: sum(map(_is_hidden, table.columns[label]))
    for key, table in found.items()
  }
  if any(_is_hidden(name) for name in class_names):
    return found
  if hidden["train"] and hidden["train"] == len(found["train"].columns[label]):
    raise ValueError(f"{source}: train has no labels, they all are -1")
  if hidden["train"]:  # where -1 is a label as others are
    return found
  kept = {}
  for key, table in found.items():
    total = len(table.columns[label])
    if hidden[key] and hidden[key] == total:
      logging.info("Left %s of %s out: it has no labels", key, source)
      continue
    if hidden[key]:
      logging.warning(
        "%d of %d labels in %s of %s are -1, which marks hidden labels; train"
        " has none of these",
        hidden[key],
        total,
        key,
        source,
      )
    kept[key] = table
  return kept


def _is_hidden(value) -> bool:
  """Whether a label is -1, as a number or written out."""
  try:
    return float(value) == -1
  except (TypeError, ValueError):
    return False


def _sorted_names(labels) -> list[str]:
  """Returns the different labels in order."""
  names = {name for label in labels if (name := _label_name(label))}
  if all(re.fullmatch("-?[0-9]{1,18}", name) for name in names):
    return sorted(names, key=lambda name: (int(name), name))
  return sorted(names)


def _label_name(label):
  """Returns the name of a class: a text, or an integer or truth of JSON."""
  if isinstance(label, str):
    return label or None
  return str(label) if isinstance(label, int | np.integer) else None


def _indices(table: tables.Table, label: str, names: Sequence[str]):
  """Returns the class of each row, int32 [n]."""
  index: Mapping[str | None, int] = {name: i for i, name in enumerate(names)}
  found = np.empty(len(table.columns[label]), np.int32)
  for row, value in enumerate(table.columns[label]):
    place = index.get(_label_name(value))
    if place is None:
      shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
      raise ValueError(
        f"{table.place(row)}: {label} is {value!r}, which is none of the"
        f" classes {shown}"
      )
    found[row] = place
  return found
