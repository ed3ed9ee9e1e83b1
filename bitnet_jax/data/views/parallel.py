"""Pairs of texts: what a model reads, and what it has to write."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bitnet_jax.data import splits
from bitnet_jax.data.sources import tables, textfiles
from bitnet_jax.data.views import documents

_SCHEMES = (
  "file:PATH with {lang}, file:PATH.tsv or .jsonl, and tfds:NAME (as wmt14_"
  "translate/de-en, cnn_dailymail)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
  """Examples that are used together.

  Attributes:
    sources: n texts that are read.
    targets: n texts that are written.
  """

  sources: list[str]
  targets: list[str]

  @property
  def classes(self) -> np.ndarray:
    """One class for all: a cut takes any of them."""
    return np.zeros(len(self.sources), np.int64)

  def take(self, rows: np.ndarray) -> "Pairs":
    """Returns the pairs where `rows`, bool [n], is true."""
    places = np.flatnonzero(rows)
    return Pairs(
      sources=[self.sources[i] for i in places],
      targets=[self.targets[i] for i in places],
    )

  def __len__(self) -> int:
    return len(self.sources)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelCorpus:
  """Pairs by split.

  Attributes:
    splits: among "train", "valid" and "test"; "train" is always there.
    fingerprint: names the pairs by content, never by their place.
  """

  splits: dict[str, Pairs]
  fingerprint: str


def load_parallel(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  languages: Sequence[str] = (),
) -> ParallelCorpus:
  """Loads pairs of texts into memory and completes their splits.

  Splits that the source lacks are cut from "train", see `splits.Cuts`.

  Args:
    source: `file:PATH`, where PATH has `{lang}` for a file a language, line k
      of one being line k of the other, or ends in `.tsv` or `.jsonl` with a
      column a language; packed if `.gz` or `.xz` follows; with `{split}` for
      files a split (see `textfiles.find_splits`). Or `tfds:NAME`, a prepared
      set with a column a language.
    languages: what stands for `{lang}`, or the columns: that which is read, and
      that which is written. For `tfds:` by default what the set says.
    cuts: name splits, and cut those that the source lacks.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: tensorflow-datasets is not installed.
    ValueError: an argument or something in the data is not as it must be, as
      two files with different numbers of lines; names file and line.
  """
  scheme, _, name = source.partition(":")
  if scheme not in ("file", "tfds") or not name:
    raise ValueError(
      f"unknown source of pairs {source!r}; choose among {_SCHEMES}"
    )
  if len(languages) not in (0, 2) or (scheme == "file" and not languages):
    raise ValueError(
      f"{source} needs two languages, read and written, not {list(languages)}"
    )
  names = dict(cuts.split_names)
  if scheme == "tfds":
    found = _read_set(name, languages, names, cuts.data_dir)
  elif "{lang}" in name:
    found = _read_lines(name, languages, names)
  else:
    found = _read_tables(name, languages, names)
  for key, pairs in found.items():
    if not pairs:
      raise ValueError(f"{source}: {key} has no pair")
  completed = splits.complete(found, cuts, source=source)
  contents = {
    key: [pairs.sources, pairs.targets] for key, pairs in completed.items()
  }
  return ParallelCorpus(
    splits=completed, fingerprint=documents.fingerprint(contents)
  )


def _read_lines(pattern, languages, names):
  """Reads a file a split and language."""
  read, written = (pattern.replace("{lang}", code) for code in languages)
  found = textfiles.find_splits(read, names)
  other = textfiles.find_splits(written, names)
  lacking = found.keys() ^ other.keys()
  if lacking:
    (key, *_) = lacking
    raise FileNotFoundError(
      f"{key} has only {found.get(key, other.get(key))}, a file of one of the"
      f" languages {', '.join(languages)}"
    )
  pairs = {}
  for key in found:
    sources = tables.read_lines(found[key], languages[0])
    targets = tables.read_lines(other[key], languages[1])
    texts = sources.texts(languages[0]), targets.texts(languages[1])
    if len(texts[0]) != len(texts[1]):
      raise ValueError(
        f"{sources.name} has {len(texts[0])} lines, but {targets.name} has"
        f" {len(texts[1])}"
      )
    pairs[key] = Pairs(sources=texts[0], targets=texts[1])
  return pairs


def _read_tables(pattern, languages, names):
  """Reads a TSV or JSONL file a split."""
  if textfiles.kind(pattern) not in tables.KINDS:
    raise ValueError(
      f"file:{pattern} must have {{lang}}, or end in .tsv or .jsonl, and then"
      " .gz or .xz if it is packed"
    )
  return {
    key: _pairs(tables.read(path, languages), languages)
    for key, path in textfiles.find_splits(pattern, names).items()
  }


def _read_set(name, languages, names, data_dir):
  """Reads a prepared set."""
  chosen = []

  def choose(info):
    chosen.extend(languages or info.supervised_keys or ())
    if len(chosen) != 2:
      raise ValueError(
        f"tfds:{name} does not say which of its columns are read and written,"
        f" {', '.join(info.features)}; languages must"
      )
    return chosen

  found, _ = tables.read_set(name, choose, split_names=names, data_dir=data_dir)
  return {key: _pairs(table, chosen) for key, table in found.items()}


def _pairs(table, languages):
  """Returns two columns of a table."""
  sources, targets = (table.texts(column) for column in languages)
  return Pairs(sources=sources, targets=targets)
