"""Pairs of texts: what a model reads, and what it has to write."""

import dataclasses
from collections.abc import Sequence

from bitnet_jax.data import splits
from bitnet_jax.data.sources import registry, textfiles
from bitnet_jax.data.splits import Dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs(splits.Columns):
  """Pairs that are used together.

  Attributes:
    sources: n texts that are read.
    targets: n texts that are written.
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
    source: `file:PATH`, where PATH has `{lang}` for a file a language, line k
      of one being line k of the other, or ends in `.tsv` or `.jsonl` with a
      column a language; packed if `.gz` or `.xz` follows; with `{split}` for
      files a split (see `textfiles.find_splits`). Or `tfds:NAME`, a prepared
      set with a column a language.
    cuts: name splits, and cut those that the source lacks.
    languages: what stands for `{lang}`, or the columns: that which is read, and
      that which is written. For `tfds:` by default what the set says.

  Returns:
    The pairs; their fingerprint is that of their content.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: tensorflow-datasets is not installed.
    ValueError: an argument or something in the data is not as it must be, as
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
