"""Loads pairs of source and target texts, for translation."""

import dataclasses
from collections.abc import Sequence

from bitnet_jax.data import splits
from bitnet_jax.data.sources import registry, textfiles
from bitnet_jax.data.splits import Dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs(splits.Columns):
  """The pairs of a split.

  Attributes:
    sources: n source texts.
    targets: n target texts.
  """

  sources: list[str]
  targets: list[str]


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  languages: Sequence[str] = (),
) -> Dataset[Pairs]:
  """Loads pairs of texts into memory and completes their splits, see `Cuts`.

  Args:
    source: `file:PATH`, where PATH has `{lang}` for one file per language with
      matching lines, or ends in `.tsv` or `.jsonl` with one column per
      language; optionally compressed (`.gz`, `.xz`), and with `{split}` for one
      file per split (see `textfiles.find_splits`). Or `tfds:NAME`, a prepared
      data set with one column per language.
    cuts: names of splits, and how to cut missing ones.
    languages: source and target language: the names in place of `{lang}`, or
      the columns. For `tfds:` the default is that of the data set.

  Returns:
    The pairs; their fingerprint is that of their content.

  Raises:
    FileNotFoundError: the file does not exist.
    ImportError: tensorflow-datasets is not installed.
    ValueError: an argument or something in the data is invalid, as
      two files with different numbers of lines; names file and line.
  """
  read, rest = registry.find("pairs of texts", source)
  is_file = source.startswith("file:")
  if len(languages) not in (0, 2) or (is_file and not languages):
    raise ValueError(
      f"{source} needs two languages, read and written, not {list(languages)}"
    )
  options = (languages,) if read is textfiles.read_languages else ()
  found = read(rest, cuts, *options)
  columns = tuple(languages or found.pair)
  if len(columns) != 2:
    raise ValueError(
      f"{source} does not say which of its columns are read and written,"
      f" {', '.join(found.names)}; languages must"
    )
  pairs = {}
  for key, table in found.splits.items():
    read_columns = table.read(*columns)
    sources, targets = map(read_columns.texts, columns)
    pairs[key] = Pairs(sources=sources, targets=targets)
  return splits.make_dataset(pairs, cuts, source=source)
