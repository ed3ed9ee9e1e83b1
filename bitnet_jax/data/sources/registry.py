"""All data sources: every `scheme:rest`, with its reader.

To add a source, add a module with a reader and a line here.
"""

import contextlib
import contextvars
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from bitnet_jax import choices
from bitnet_jax.data.sources import (
  csv_graphs,
  csvfiles,
  docstrings,
  embedded,
  folder,
  hf,
  hf_images,
  jsonl,
  npz_arrays,
  npz_graphs,
  parquetfiles,
  planetoid,
  random_graphs,
  textfiles,
  textfolders,
  textgcn,
  tfds,
  tsv,
)
from bitnet_jax.data.sources.tables import Source
from bitnet_jax.data.splits import Cuts

# Takes what is behind the colon, and `Cuts`.
Reader = Callable[..., Source]

# Readers by what they read, and by the name that users write: words in capitals
# are theirs to choose, "..." is anything, and what stands in brackets can be
# left out.
SOURCES: dict[str, dict[str, Reader]] = {
  "arrays": {
    "embedded:digits": embedded.digits,
    "embedded:xor": embedded.xor,
    "tfds:NAME": tfds.read_images,
    "file:PATH.npz": npz_arrays.read,
    "file:PATH.csv[.gz|.xz]": csvfiles.read_features,
    "file:PATH.parquet": parquetfiles.read_features,
    "folder:PATH": folder.read,
    "hf:NAME": hf_images.read,
  },
  "documents": {
    "embedded:pydoc": embedded.pydoc,
    "file:PATH.txt[.gz|.xz]": textfiles.read_whole,
    "file:PATH.tsv[.gz|.xz]": tsv.read,
    "file:PATH.csv[.gz|.xz]": csvfiles.read,
    "file:PATH.jsonl[.gz|.xz]": jsonl.read,
    "file:PATH.parquet": parquetfiles.read,
    "file:PATH.md[.gz|.xz]": textfiles.read_whole,
    "file:FOLDER": textfolders.read_documents,
    "file:FOLDER/*": textfolders.read_glob,
    "tfds:NAME": tfds.read,
    "hf:NAME": hf.read_documents,
  },
  "labeled texts": {
    "embedded:docstrings": docstrings.read,
    "file:PATH.tsv[.gz|.xz]": tsv.read,
    "file:PATH.csv[.gz|.xz]": csvfiles.read,
    "file:PATH.jsonl[.gz|.xz]": jsonl.read,
    "file:PATH.parquet": parquetfiles.read,
    "file:FOLDER": textfolders.read_labeled,
    "textgcn:FOLDER/NAME.raw": textgcn.read,
    "textgcn:FOLDER/NAME.clean": textgcn.read,
    "tfds:NAME": tfds.read,
    "hf:NAME": hf.read,
  },
  "pairs of texts": {
    "file:...{lang}...": textfiles.read_languages,
    "file:PATH.tsv[.gz|.xz]": tsv.read,
    "file:PATH.csv[.gz|.xz]": csvfiles.read,
    "file:PATH.jsonl[.gz|.xz]": jsonl.read,
    "file:PATH.parquet": parquetfiles.read,
    "tfds:NAME": tfds.read,
    "hf:NAME": hf.read,
  },
  "a graph": {
    "embedded:karate": embedded.karate,
    "file:PATH.npz": npz_graphs.read,
    "file:FOLDER": csv_graphs.read,
    "tfds:planetoid/cora": planetoid.read_prepared,
    "tfds:planetoid/citeseer": planetoid.read_prepared,
    "tfds:planetoid/pubmed": planetoid.read_prepared,
    "tfds:bitnet_karate": tfds.read_graphs,
  },
  "graphs": {
    "embedded:graphs": random_graphs.read,
    "file:FOLDER": npz_graphs.read_folder,
    "tfds:NAME": tfds.read_graphs,
  },
}


def find(content: str, source: str) -> tuple[Reader, str]:
  """Returns the reader of a source, and the text after the colon.

  Args:
    content: a key of `SOURCES`.
    source: `scheme:rest`.

  Raises:
    ValueError: nothing reads it; names the choices.
  """
  known = SOURCES[content]
  for name, reader in known.items():
    rest = source.partition(":")[2]
    if name == "file:FOLDER" and not _is_folder(rest):
      continue
    if re.fullmatch(_pattern(name), source, re.DOTALL):
      return reader, rest
  *others, last = known
  spelled = [name for name in known if name.islower()]
  raise ValueError(
    f"unknown source of {content} {source!r}; choose among"
    f" {', '.join(others)} and {last}{choices.nearest(source, spelled)}"
  )


def _is_folder(path):
  """Whether a path is a folder, or could be: a name without an ending."""
  path = pathlib.Path(path)
  return path.expanduser().is_dir() or not (
    path.suffix or re.search(r"[*?\[]", str(path))
  )


# The last source that was read, with its arguments, while one is kept.
_kept: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar(
  "kept", default=None
)


@contextlib.contextmanager
def keeping() -> Iterator[None]:
  """Keeps the last source in memory, so that the next call of `read` gives it.

  For a block of code that looks at a source before it loads it, or that loads
  it several times. A block inside another one keeps what that one keeps.
  """
  if _kept.get() is not None:
    yield
    return
  token = _kept.set({})
  try:
    yield
  finally:
    _kept.reset(token)


def read(reader: Reader, rest: str, cuts: Cuts, *args: Any, **options: Any):
  """Returns what a reader returns, see `find` and `keeping`."""
  kept = _kept.get()
  if kept is None:
    return reader(rest, cuts, *args, **options)
  # Readers cut nothing.
  own = (dict(cuts.split_names), cuts.data_dir)
  arguments = (reader, rest, own, args, options)
  if kept.get("arguments") != arguments:
    kept.clear()
    kept["source"] = reader(rest, cuts, *args, **options)
    kept["arguments"] = arguments
  return kept["source"]


def _pattern(name):
  """Returns the regular expression of a name in `SOURCES`."""
  pattern = re.escape(name).replace(r"\.\.\.", ".*")
  for sign, meaning in ((r"\[", "("), (r"\|", "|"), (r"\]", ")?")):
    pattern = pattern.replace(sign, meaning)
  pattern = pattern.replace(r"FOLDER/\*", r".*[*?\[].*")
  pattern = re.sub("[A-Z]+", ".+", pattern)
  # NumPy's files may be spelled in capitals, as some systems do.
  return pattern.replace("npz", "(?i:npz)")
