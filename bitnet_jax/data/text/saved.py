"""Saves vocabularies beside a model, and describes them as ``tokenizer.json``.

Beside a model, a vocabulary is saved in the files that it was loaded from, with
a JSON entry that says how to load them again. For other libraries, ``describe``
returns the content of a ``tokenizer.json``.
"""

import itertools
import json
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax import choices
from bitnet_jax.data.text import sentencepieces, subwords
from bitnet_jax.data.text.tokenizers import (
  ROLES,
  Tokenizer,
  load_tokenizer,
)
from bitnet_jax.files import PathLike, local_path

# The scheme that loads a saved vocabulary, and its file names, by its kind.
_SAVED = {
  "bytes": ("bytes", ()),
  "bpe": ("tokenizers", (subwords.FILE_NAME,)),
  "wordpiece": ("tokenizers", (subwords.FILE_NAME,)),
  "unigram": ("sentencepiece", (sentencepieces.FILE_NAME,)),
  "tokenizers": ("tokenizers", (subwords.FILE_NAME,)),
  "sentencepiece": ("sentencepiece", (sentencepieces.FILE_NAME,)),
  "gpt2": ("gpt2", ("vocab.json", "merges.txt")),
  "bert": ("bert", ("vocab.txt",)),
}
# Prefix of the names of files that a run copies into its folder.
COPIED = "vocabulary_"
COPIES = frozenset(
  f"{COPIED}{name}" for _, names in _SAVED.values() for name in names
)
# Texts on which the vocabularies of both libraries must agree.
_SAMPLES = (
  "The quick brown fox jumps over the lazy dog.",
  "  two spaces,\ttabs\n\nline feeds \r\n and\u00a0others\u3000 ",
  "def f(x): return x**2 + 1_000",
  "we'll say it's DON'T, y'all; 3.14159 of 1234567890 in 007",
  "Größe, naïve café, e\u0301; 漢字 한국어 العربية हिन्दी",
  "🙂 👩‍👩‍👧🏽 🇩🇰🙂🙂x1🙂 ½ ² ٣",
  "bytes as they are named, <0x41><0x0A>",
)
# Around an added token.
_AROUND = ("call {0} in New York", "{0}{0}", "x{0}1", " {0}\n{0} ", "🙂{0}é")
_MOST_ADDED, _DRAWN, _TOKENS = 200, 100, 8


def save_vocabulary(
  tokenizer: Tokenizer,
  spec: str,
  folder: PathLike,
  *,
  cache: PathLike | None = None,
  lowercase: bool | None = None,
) -> dict[str, Any]:
  """Copies the files of a vocabulary, and checks that they load as the same.

  Args:
    tokenizer: the vocabulary.
    spec: the spec that loaded it, see ``load_tokenizer``.
    folder: the folder to copy to.
    cache: the run folder, which holds the files of trained vocabularies.
      ``None`` if it is ``folder``: then only files from elsewhere are copied,
      under names (``COPIES``) that do not replace files of the user.
    lowercase: the argument that loaded it.

  Returns:
    The JSON entry for ``load_vocabulary``.
  """
  folder = local_path(folder)
  kind, _, path = spec.partition(":")
  saved, names = _SAVED[kind]
  entry = {
    "kind": saved,
    "vocab_size": tokenizer.vocab_size,
    "num_sentinels": len(tokenizer.sentinels),
    "lowercase": lowercase if saved == "bert" else None,
    "needs": [r for r in ROLES if getattr(tokenizer, f"{r}_id") is not None],
    "fingerprint": tokenizer.fingerprint,
  }
  parts = subwords.split_pair(path) if len(names) > 1 else (path,)
  sources = [pathlib.Path(part).expanduser() for part in parts]
  if not path:
    sources = [
      local_path(folder if cache is None else cache) / n for n in names
    ]
  elif cache is None:
    entry["prefix"] = COPIED
  for source, name in zip(sources, names, strict=True):
    target = folder / f"{entry.get('prefix', '')}{name}"
    if source != target:
      shutil.copyfile(source, target)
  load_vocabulary(entry, folder)
  return entry


def spec_of(entry: Mapping[str, Any], folder: PathLike) -> str:
  """Returns the spec by which ``load_tokenizer`` loads a saved vocabulary.

  Args:
    entry: the result of ``save_vocabulary``.
    folder: the folder of its files.
  """
  kind, prefix = entry["kind"], entry.get("prefix", "")
  choices.check(kind, {saved for saved, _ in _SAVED.values()}, key="kind")
  choices.check(prefix, ("", COPIED), key="prefix")
  names = next(names for saved, names in _SAVED.values() if saved == kind)
  files = ",".join(str(local_path(folder) / f"{prefix}{n}") for n in names)
  return f"{kind}:{files}" if files else kind


def load_vocabulary(entry: Mapping[str, Any], folder: PathLike) -> Tokenizer:
  """Returns the tokenizer that was saved in a folder.

  Args:
    entry: the result of ``save_vocabulary``.
    folder: the folder of its files.

  Raises:
    FileNotFoundError: if its file does not exist.
    ValueError: if the entry or the file differs from what was saved.
  """
  try:
    spec, options = spec_of(entry, folder), dict(entry)
    fingerprint = options.pop("fingerprint")
    for name in ("kind", "prefix"):
      options.pop(name, None)
    found = load_tokenizer(spec, texts=tuple, **options)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"the saved vocabulary in {folder} is damaged: {error!r:.500}"
    ) from error
  if found.fingerprint != fingerprint:
    raise ValueError(
      f"the vocabulary in {folder} is not the one that the model was trained"
      f" with: {found.fingerprint}, not {fingerprint}"
    )
  return found


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns the content of a ``tokenizer.json`` with all special tokens.

  Encoding with special tokens puts the end-of-text token before a text, as in
  training, where each text follows another.

  Raises:
    ImportError: if tokenizers is not installed.
    ValueError: if such a file cannot describe this vocabulary.
  """
  description = tokenizer.codec.describe()
  names = names_of(description)
  added = description["added_tokens"]
  wanted = {getattr(tokenizer, f"{role}_id"): f"<{role}>" for role in ROLES}
  wanted |= {i: f"<extra_id_{n}>" for n, i in enumerate(tokenizer.sentinels)}
  wanted.pop(None, None)
  special = {token["id"] for token in added if token["special"]}
  for i in sorted(wanted.keys() - special):
    name = names.setdefault(i, wanted[i])
    added.append(subwords.special_token(i, name))
  if description["model"]["type"] == "Unigram":
    _cut_names(description)
  if tokenizer.eos_id is not None:
    first = names[tokenizer.eos_id]
    token = {"id": first, "ids": [tokenizer.eos_id], "tokens": [first]}
    mark = {"SpecialToken": {"id": first, "type_id": 0}}
    a, b = ({"Sequence": {"id": i, "type_id": 0}} for i in "AB")
    description["post_processor"] = {
      "type": "TemplateProcessing",
      "single": [mark, a],
      "pair": [mark, a, mark, b],
      "special_tokens": {first: token},
    }
  _check(description, tokenizer)
  return description


def _cut_names(description) -> None:
  """Splits the names of special tokens and bytes in two, so they stay text.

  As subword tokens of the model they would be found in any text.
  """
  assert description["pre_tokenizer"] is None
  names = [t["content"] for t in description["added_tokens"] if t["special"]]
  starts = [f"{re.escape(n[0])}(?={re.escape(n[1:])})" for n in names if n[1:]]
  if description["model"]["byte_fallback"]:
    starts.append("<(?=0x[0-9A-F]{2}>)")
  description["pre_tokenizer"] = {
    "type": "Split",
    "pattern": {"Regex": "|".join(starts)},
    "behavior": "MergedWithPrevious",
    "invert": False,
  }


def names_of(description: dict[str, Any]) -> dict[int, str]:
  """Returns the names of all tokens by id."""
  vocabulary = description["model"]["vocab"]
  if isinstance(vocabulary, dict):
    names = {i: name for name, i in vocabulary.items()}
  else:
    names = {i: name for i, (name, _) in enumerate(vocabulary)}
  for token in description["added_tokens"]:
    names[token["id"]] = token["content"]
  return names


def _check(description, tokenizer):
  """Raises a ValueError unless the library encodes texts as we do."""
  try:
    import tokenizers
  except ImportError as error:
    raise ImportError(
      "a tokenizer.json needs tokenizers: pip install 'bitnet-jax[train]'"
    ) from error
  other = tokenizers.Tokenizer.from_str(json.dumps(description))
  other.encode_special_tokens = True
  names = [token["content"] for token in description["added_tokens"]]
  compare("as a tokenizer.json", other, tokenizer, names)


def compare(
  where: str, other: Any, tokenizer: Tokenizer, names: Sequence[str]
) -> None:
  """Raises a ValueError unless two vocabularies give texts the same ids.

  Args:
    where: name of the other vocabulary, for the message.
    other: a ``tokenizers.Tokenizer``.
    tokenizer: our vocabulary.
    names: names of tokens that are matched before words are split.
  """
  texts = _samples(tokenizer, names[:_MOST_ADDED])
  theirs = other.encode_batch(texts, add_special_tokens=False)
  ours = tokenizer.encode_batch(texts)
  for text, their, our in zip(texts, theirs, ours, strict=True):
    if their.ids != our.tolist():
      raise ValueError(
        f"{where}, the vocabulary reads {text!r} as {their.ids}, not as"
        f" {our.tolist()}"
      )


def _samples(tokenizer, names) -> list[str]:
  """Returns test texts: fixed ones, some around names, and random tokens."""
  rng = np.random.default_rng(0)
  known = np.setdiff1d(np.arange(tokenizer.vocab_size), tokenizer.unused)
  drawn = rng.choice(known, (_DRAWN, _TOKENS))
  return [
    *_SAMPLES,
    *(form.format(name) for name in names for form in _AROUND),
    *(" ".join(pair) for pair in itertools.pairwise(names)),
    *map(tokenizer.decode, drawn),
  ]
