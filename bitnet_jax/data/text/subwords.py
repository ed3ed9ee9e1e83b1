"""Reads subword vocabularies of the tokenizers library from files."""

import itertools
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from bitnet_jax.data.sources import textfiles
from bitnet_jax.data.text import limits
from bitnet_jax.data.text.vocabulary import Vocabulary
from bitnet_jax.extras import needed_by
from bitnet_jax.files import local_path, parse_json, read_bytes

FILE_NAME = "tokenizer.json"

# Names of special tokens; of each role, the first that a vocabulary has counts.
_ROLES = {
  "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
  "bos": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>"),
  "eos": ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>"),
  "unk": ("<unk>", "[UNK]", "<|unk|>"),
  "mask": ("<mask>", "[MASK]", "<|mask|>"),
  "cls": ("<cls>", "[CLS]"),
  "sep": ("<sep>", "[SEP]"),
}
# Precedes the names of special tokens. It is random in each process, so that no
# text can contain it; ids do not depend on it.
_HIDDEN = f"\0{secrets.token_hex(16)}"
_SENTINEL = re.compile(r"<extra_id_(\d+)>")
# Long texts are cut here, so that several threads can encode them: the word
# rules of GPT-2 and BERT split a text between a character and a single space.
_BORDER = re.compile(r"(?<=\S) (?=\S)")
_RARE = "\U00012000"  # a letter that few vocabularies have
_RANDOM = ("dropout", "alpha", "nbest_size")  # make ids random
_PART = 2**14  # characters
_PARTS = 1024  # that are encoded at once, which bounds the memory


class _Codec:
  """Codec of a tokenizer of the tokenizers library."""

  def __init__(self, tokenizer, where):
    self._tokenizer, self._where = tokenizer, where
    self._by_words = _splits_words(tokenizer)

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """Returns the ids of each text."""
    cut = _parts if self._by_words else lambda text: [text]
    cut_texts = [cut(text) for text in texts]
    ids = self._ids(itertools.chain.from_iterable(cut_texts))
    return [
      list(itertools.chain.from_iterable(itertools.islice(ids, len(parts))))
      for parts in cut_texts
    ]

  def _ids(self, parts):
    """Yields the ids of each part."""
    while batch := list(itertools.islice(parts, _PARTS)):
      with limits.naming_failures(self._where):
        encoded = self._tokenizer.encode_batch_fast(
          batch, add_special_tokens=False
        )
      yield from (encoding.ids for encoding in encoded)

  def decode(self, ids: list[int]) -> str:
    """Returns the text of ids."""
    with limits.naming_failures(self._where):
      return self._tokenizer.decode(ids, skip_special_tokens=False)

  def describe(self) -> dict[str, Any]:
    """Returns the content of a `tokenizer.json`, special tokens by name."""
    description = json.loads(self._tokenizer.to_str())
    for token in description["added_tokens"]:
      token["content"] = _shown(token["content"])
    model = description["model"]
    if isinstance(model["vocab"], dict):
      model["vocab"] = {_shown(k): v for k, v in model["vocab"].items()}
    else:
      model["vocab"] = [(_shown(k), v) for k, v in model["vocab"]]
    return description


def _parts(document):
  """Cuts a long text where that does not change its ids."""
  parts, start = [], 0
  while border := _BORDER.search(document, start + _PART):
    parts.append(document[start : border.start()])
    start = border.start()
  return [*parts, document[start:]]


def read(path: str) -> Vocabulary:
  """Reads a `tokenizer.json`; see `parse`.

  Raises:
    FileNotFoundError: the file does not exist.
    ImportError: tokenizers is not installed.
    ValueError: it is not a file of the tokenizers library.
  """
  file = textfiles.find(path)
  data = read_bytes(file, most=limits.LARGEST_VOCABULARY)
  return parse(data, where=str(file))


def parse(data: bytes, *, where: str) -> Vocabulary:
  """Returns the vocabulary of a `tokenizer.json`.

  Truncation, padding, added special tokens and random choices (the dropout of
  BPE) are switched off.

  Args:
    data: content of the file.
    where: name of the file, for messages.

  Raises:
    ImportError: tokenizers is not installed.
    ValueError: it is not a file of the tokenizers library, or exceeds a limit
      in `limits`.
  """
  library = import_library()
  with limits.naming_failures(f"{where} is not a tokenizer.json"):
    description = parse_json(data, most=limits.MOST_VALUES)
    limits.check_description(description)
    named, unknown = _special(description)
    _hide(description, unknown)
    _fix(description, where)
    tokenizer = library.Tokenizer.from_str(json.dumps(description))
  return _loaded(tokenizer, data, named, where)


def split_pair(path: str) -> tuple[str, str]:
  """Splits "VOCAB.json,MERGES.txt" at the first comma between two files.

  Folders may have commas in their names.
  """
  parts = path.split(",")
  pairs = [
    (",".join(parts[:i]), ",".join(parts[i:])) for i in range(1, len(parts))
  ]
  files = (p for p in pairs if all(local_path(n).is_file() for n in p))
  return next(files, pairs[0])


def read_gpt2(paths: str) -> Vocabulary:
  """Reads the two files of the byte-level BPE of GPT-2; see `read`."""
  library = import_library()
  files = [textfiles.find(path) for path in split_pair(paths)]
  most = limits.LARGEST_VOCABULARY
  content = b"\0".join(read_bytes(file, most=most) for file in files)
  what = f"{files[0]} and {files[1]} are not vocabulary and merges of a BPE"
  with limits.naming_failures(what):
    # Each token has a colon, and each merge a line.
    limits.check_ids([content.count(sign) for sign in (b":", b"\n")])
    model = library.models.BPE.from_file(*map(str, files))
  tokenizer = library.Tokenizer(model)
  tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  tokenizer.decoder = library.decoders.ByteLevel()
  return _loaded(tokenizer, content, tokenizer.get_vocab(), str(files[0]))


def read_bert(path: str, *, lowercase: bool) -> Vocabulary:
  """Reads the WordPiece vocabulary of BERT, one token a line; see `read`."""
  file = textfiles.find(path)
  data = read_bytes(file, most=limits.LARGEST_VOCABULARY)
  with limits.naming_failures(str(file)):
    limits.check_ids([data.count(b"\n")])
  lines = textfiles.read(file).removesuffix("\n").split("\n")
  vocabulary = {token: line for line, token in enumerate(lines)}
  for line, token in enumerate(lines):
    if not token or vocabulary[token] != line:
      what = f"repeats {token!r}" if token else "is empty"
      raise ValueError(f"{file}, line {line + 1}: {what}; a token a line")
  if "[UNK]" not in vocabulary:
    raise ValueError(f"{file} is not a vocabulary of BERT: it lacks [UNK]")
  tokenizer = wordpiece_tokenizer(vocabulary, "[UNK]", lowercase=lowercase)
  content = b"%d %s" % (lowercase, data)
  return _loaded(tokenizer, content, vocabulary, str(file))


def _loaded(tokenizer, content, named, where):
  """Returns what `parse` returns."""
  tokenizer.encode_special_tokens = True  # their text is text
  known = {*tokenizer.get_vocab().values()}
  with limits.naming_failures(where):
    limits.check_ids(known)
    limits.check_time(tokenizer.encode)
  if not _encodes(tokenizer, _RARE):
    logging.warning(
      "%s has neither an unknown token nor all bytes: characters that it lacks"
      " are dropped from texts, or are errors",
      where,
    )
  ids = {
    role: named[name]
    for role, known in _ROLES.items()
    for name in reversed(known)
    if name in named
  }
  sentinels = {
    int(match[1]): token
    for name, token in named.items()
    if (match := _SENTINEL.fullmatch(name))
  }
  size = max(known, default=-1) + 1
  return Vocabulary(
    codec=_Codec(tokenizer, where),
    content=content,
    size=size,
    ids=ids,
    sentinels=tuple(sentinels[key] for key in sorted(sentinels)),
    unused=tuple(i for i in range(size) if i not in known),
  )


def _encodes(tokenizer, text):
  """Whether a text has tokens."""
  try:
    return bool(tokenizer.encode(text, add_special_tokens=False).ids)
  except Exception:  # the library raises bare exceptions
    return False


def _special(description):
  """Returns the ids of special tokens by name, and the unknown token's name."""
  named = {
    token["content"]: token["id"]
    for token in description["added_tokens"]
    if token["special"]
  }
  model = description["model"]
  unknown, token = model.get("unk_token"), model.get("unk_id")
  if token is not None:  # of a unigram vocabulary
    unknown = model["vocab"][token][0]
  elif unknown is not None:
    token = model["vocab"].get(unknown)
  if token is not None:
    named["<unk>"] = token
  return named, unknown


def describe(
  model: Mapping[str, Any],
  *,
  added_tokens: Sequence[Mapping[str, Any]] = (),
  **parts: Any,
) -> dict[str, Any]:
  """Returns the content of a `tokenizer.json`.

  Args:
    model: its model.
    added_tokens: see ``special_token``.
    **parts: normalizer, pre_tokenizer and decoder.
  """
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": list(added_tokens),
    **dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor")),
    "decoder": None,
    **parts,
    "model": dict(model),
  }


def special_token(token: int, name: str) -> dict[str, Any]:
  """Returns a special token as a `tokenizer.json` lists it."""
  flags = ("single_word", "lstrip", "rstrip", "normalized")
  about = {"id": token, "content": name, "special": True}
  return about | dict.fromkeys(flags, False)


def describe_bytes() -> dict[str, Any]:
  """Returns a byte-level BPE without merges: token ``i`` is the byte ``i``."""
  # As in GPT-2, a byte that is a printable character is named by it.
  printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
  others = itertools.count(256)
  characters = [chr(b if b in printed else next(others)) for b in range(256)]
  rules = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
  return describe(
    {"type": "BPE", "vocab": dict(zip(characters, range(256), strict=True))}
    | {"merges": []},
    pre_tokenizer={**rules, "trim_offsets": True},
    decoder={**rules, "trim_offsets": True},
  )


def _shown(name):
  """Returns the name that a token had before ``_hide``."""
  return name.removeprefix(_HIDDEN)


def _hide(description, unknown):
  """Renames special tokens, so that the model does not find them in texts."""
  model, hidden = description["model"], {}
  for token in description["added_tokens"]:
    if token["special"] and token["content"] != unknown:
      hidden[token["content"]] = token["content"] = _HIDDEN + token["content"]
  if isinstance(model["vocab"], dict):
    rename = {hidden.get(k, k): v for k, v in model["vocab"].items()}
  else:
    rename = [(hidden.get(k, k), v) for k, v in model["vocab"]]
  model["vocab"] = rename


def _fix(description, where):
  """Turns off settings that make ids depend on more than the text."""
  for key in ("truncation", "padding", "post_processor"):
    description[key] = None
  model = description["model"]
  for key in _RANDOM:
    if model.get(key):
      logging.warning(
        "%s has %s=%r, which makes tokens random; it is switched off",
        where,
        key,
        model[key],
      )
      model[key] = None


def wordpiece_tokenizer(vocabulary, unknown, *, lowercase):
  """Returns a tokenizer with the rules of BERT."""
  library = import_library()
  model = library.models.WordPiece(vocabulary, unk_token=unknown)
  tokenizer = library.Tokenizer(model)
  tokenizer.normalizer = bert_rules(lowercase)
  tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = library.decoders.WordPiece(cleanup=False)
  return tokenizer


def bert_rules(lowercase):
  """Returns the text rules of BERT, which come before its split into words."""
  return import_library().normalizers.BertNormalizer(lowercase=lowercase)


def _splits_words(tokenizer):
  """Whether texts can be encoded in parts, cut at `_BORDER`."""
  rule, normalizer = _rule(tokenizer.pre_tokenizer), _rule(tokenizer.normalizer)
  byte_level = (
    rule["type"] == "ByteLevel"
    and not rule["add_prefix_space"]
    and rule["use_regex"]
  )
  if not byte_level and rule["type"] != "BertPreTokenizer":
    return False
  if normalizer["type"] not in (None, "Lowercase", "BertNormalizer"):
    return False
  # Tokens that are found in a text before its words are.
  added = tokenizer.get_added_tokens_decoder().values()
  return not any(
    not token.special and (token.rstrip or _has_space(tokenizer, token.content))
    for token in added
  )


def _rule(part):
  """Returns a part of a tokenizer as in `tokenizer.json`."""
  return {"type": None} if part is None else json.loads(part.__getstate__())


def _has_space(tokenizer, name):
  """Whether an added token contains space, as written or normalized."""
  rule = tokenizer.normalizer
  looked_for = name if rule is None else rule.normalize_str(name)
  return any(c.isspace() for c in name + looked_for)


def import_library() -> Any:
  """Imports the library tokenizers; an ImportError says what to do."""
  with needed_by("subword vocabularies", "tokenizers"):
    import tokenizers
  return tokenizers
