"""Pairs of texts: the input of a model, and the output it should write."""

import dataclasses
from collections.abc import Sequence

from bitnet_jax.data import splits
from bitnet_jax.data.sources import registry, textfiles
from bitnet_jax.data.splits import Dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs(splits.Columns):
  """A split of pairs: texts that are read, and texts that are written."""

  sources: Sequence[str]
  targets: Sequence[str]


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  languages: Sequence[str] = (),
) -> Dataset[Pairs]:
  """Loads pairs of texts; their fingerprint is that of their content.

  Args:
    source: `file:PATH`, where PATH has `{lang}` for one file per language, with
      line k of one translated in line k of the other, or ends in `.csv`,
      `.tsv`, `.jsonl` or `.parquet` with one column per language; or
      `tfds:NAME`, a prepared set; or `hf:NAME`, a set of the library
      `datasets`. See `textfiles` for compressed files and `{split}`.
    cuts: for names of splits, and for those that the source lacks.
    languages: of the input and the output: the values of `{lang}`, or the
      columns. By default what a set of `tfds:` or `hf:` says.

  Raises:
    ValueError: an argument or something in the data is wrong; names file and
      line.
  """
  read, rest = registry.find("pairs of texts", source)
  is_file = source.startswith("file:")
  if len(languages) not in (0, 2) or (is_file and not languages):
    raise ValueError(
      f"{source} needs two languages, read and written, not {list(languages)}"
    )
  options = (languages,) if read is textfiles.read_languages else ()
  found = registry.read(read, rest, cuts, *options)
  columns = tuple(languages or found.pair)
  if len(columns) != 2:
    raise ValueError(
      f"{source} does not say which of its columns are read and written,"
      f" {', '.join(found.names)}; languages must"
    )
  pairs = {}
  for key, table in found.splits.items():
    read_columns = table.read(
      *columns, hint="data.languages names those of the texts"
    )
    sources, targets = map(read_columns.texts, columns)
    pairs[key] = Pairs(sources=sources, targets=targets)
  return splits.make_dataset(pairs, cuts, source=source, features=columns[:1])
