"""Vocabularies as a ``tokenizer.json``, which other libraries read."""

import json
from typing import Any

from bitnet_jax.data import pieces
from bitnet_jax.data.tokenizers import ROLES, Tokenizer

# Texts on which the vocabularies of both libraries must agree.
_SAMPLES = (
  "The quick brown fox jumps over the lazy dog.",
  "  two spaces,\ttabs\n\nand line feeds ",
  "def f(x): return x**2 + 1_000",
  "Größe, naïve café; 漢字 🙂",
)


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns the content of a ``tokenizer.json`` with all special tokens.

  A text that is encoded with special tokens has the token that ends texts in
  front, as in training, where each text follows another.

  Raises:
    ImportError: if tokenizers is not installed.
    ValueError: if such a file cannot say what this vocabulary does.
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
    added.append(pieces.special_token(i, name))
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
  """Raises a ValueError unless the library reads texts as we do."""
  try:
    import tokenizers
  except ImportError as error:
    raise ImportError(
      "a tokenizer.json needs tokenizers: pip install 'bitnet-jax[train]'"
    ) from error
  other = tokenizers.Tokenizer.from_str(json.dumps(description))
  first = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
  for text in _SAMPLES:
    found, own = other.encode(text).ids, tokenizer.encode(text).tolist()
    if found != first + own:
      raise ValueError(
        f"as a tokenizer.json, the vocabulary reads {text!r} as {found}, not as"
        f" {first + own}"
      )
