"""A vocabulary kept beside a model, so that it can be used without the data."""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from bitnet_jax import choices
from bitnet_jax.data.text import sentencepieces, subwords
from bitnet_jax.data.text.tokenizers import ROLES, Tokenizer, load_tokenizer
from bitnet_jax.files import PathLike, local_path

# The kind that a vocabulary is read as again, and the names of its files.
_KEPT = {
  "bytes": ("bytes", ()),
  "bpe": ("tokenizers", (subwords.FILE_NAME,)),
  "wordpiece": ("tokenizers", (subwords.FILE_NAME,)),
  "unigram": ("sentencepiece", (sentencepieces.FILE_NAME,)),
  "tokenizers": ("tokenizers", (subwords.FILE_NAME,)),
  "sentencepiece": ("sentencepiece", (sentencepieces.FILE_NAME,)),
  "gpt2": ("gpt2", ("vocab.json", "merges.txt")),
  "bert": ("bert", ("vocab.txt",)),
}


def keep_vocabulary(
  tokenizer: Tokenizer,
  spec: str,
  folder: PathLike,
  *,
  cache: PathLike,
  lowercase: bool | None = None,
) -> dict[str, Any]:
  """Copies the files of a vocabulary, and checks that they give it again.

  Args:
    tokenizer: made of it.
    spec: what it was loaded by, see ``load_tokenizer``.
    folder: where the files are put.
    cache: the folder of the run, where trained vocabularies are.
    lowercase: as it was loaded.

  Returns:
    What ``load_kept`` needs to know, for JSON.
  """
  folder = local_path(folder)
  cache = local_path(cache)
  kind, _, path = spec.partition(":")
  kept, names = _KEPT[kind]
  sources = [pathlib.Path(part).expanduser() for part in path.split(",")]
  if not path:
    sources = [cache / name for name in names]
  for source, name in zip(sources, names, strict=True):
    shutil.copyfile(source, folder / name)
  entry = {
    "kind": kept,
    "vocab_size": tokenizer.vocab_size,
    "num_sentinels": len(tokenizer.sentinels),
    "lowercase": lowercase if kept == "bert" else None,
    "needs": [r for r in ROLES if getattr(tokenizer, f"{r}_id") is not None],
    "fingerprint": tokenizer.fingerprint,
  }
  load_kept(entry, folder)
  return entry


def load_kept(entry: Mapping[str, Any], folder: PathLike) -> Tokenizer:
  """Returns the tokenizer that ``keep_vocabulary`` kept in a folder.

  Raises:
    FileNotFoundError: if its file is not there.
    ValueError: if the entry or the file is not what was kept.
  """
  folder = local_path(folder)
  try:
    options = dict(entry)
    kind, fingerprint = options.pop("kind"), options.pop("fingerprint")
    choices.check(kind, {kept for kept, _ in _KEPT.values()}, key="kind")
    names = next(names for kept, names in _KEPT.values() if kept == kind)
    files = ",".join(str(folder / name) for name in names)
    spec = f"{kind}:{files}" if files else kind
    found = load_tokenizer(spec, texts=tuple, **options)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"what is kept of the vocabulary in {folder} is damaged: {error!r:.500}"
    ) from error
  if found.fingerprint != fingerprint:
    raise ValueError(
      f"the vocabulary in {folder} is another than the model was trained with:"
      f" {found.fingerprint}, not {fingerprint}"
    )
  return found
