"""Vocabularies of the library tokenizers: read from files, and trained."""

import collections
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bitnet_jax.data import textfiles
from bitnet_jax.data.vocabulary import Vocabulary

FILE_NAME = "tokenizer.json"

# Names of special tokens, the first of a role that a vocabulary has counts.
_ROLES = {
  "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
  "bos": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>"),
  "eos": ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>"),
  "unk": ("<unk>", "[UNK]", "<|unk|>"),
  "mask": ("<mask>", "[MASK]", "<|mask|>"),
  "cls": ("<cls>", "[CLS]"),
  "sep": ("<sep>", "[SEP]"),
}
_HIDDEN = "\0"  # in front of names that no text may be taken for
_SENTINEL = re.compile(r"<extra_id_(\d+)>")
# Stands before the words from which WordPiece is trained. No text of BERT has
# a character of this kind.
_MARK = "\ue000"
_MOST_CHARACTERS = 1000  # that WordPiece spells; rarer ones are unknown
# A text is cut here for more than one thread: every rule that splits a text
# into words splits it between a character and a single space.
_BORDER = re.compile(r"(?<=\S) (?=\S)")
_PART = 2**14  # characters
_PARTS = 1024  # that are encoded at once, which bounds the memory


class _Codec:
  """Codec of a tokenizer of the library."""

  def __init__(self, tokenizer, *, by_words):
    self._tokenizer = tokenizer
    self._by_words = by_words

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
      encoded = self._tokenizer.encode_batch_fast(
        batch, add_special_tokens=False
      )
      yield from (encoding.ids for encoding in encoded)

  def decode(self, ids: list[int]) -> str:
    """Returns the text of ids."""
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
    FileNotFoundError: there is no such file.
    ImportError: tokenizers is not installed.
    ValueError: it is not a file of the library tokenizers.
  """
  file = textfiles.find(path)
  return parse(file.read_bytes(), where=str(file))


def parse(data: bytes, *, where: str) -> Vocabulary:
  """Returns the vocabulary of a `tokenizer.json`.

  What such a file says of cutting, padding and adding special tokens is left
  aside.

  Args:
    data: content of the file.
    where: names it in messages.
  """
  library = _library()
  try:
    description = json.loads(data)
    named, unknown = _special(description)
    by_words = _is_ours(description)
    _hide(description, unknown)
    tokenizer = library.Tokenizer.from_str(json.dumps(description))
  except Exception as error:  # the library raises bare exceptions
    raise ValueError(f"{where} is not a tokenizer.json: {error}") from error
  return _loaded(tokenizer, data, named, by_words=by_words)


def read_gpt2(vocab: str, merges: str) -> Vocabulary:
  """Reads the two files of the byte-level BPE of GPT-2; see `read`."""
  library = _library()
  files = [textfiles.find(path) for path in (vocab, merges)]
  try:
    model = library.models.BPE.from_file(*map(str, files))
  except Exception as error:
    raise ValueError(
      f"{files[0]} and {files[1]} are not vocabulary and merges of a BPE:"
      f" {error}"
    ) from error
  tokenizer = library.Tokenizer(model)
  tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  tokenizer.decoder = library.decoders.ByteLevel()
  content = b"\0".join(file.read_bytes() for file in files)
  return _loaded(tokenizer, content, tokenizer.get_vocab(), by_words=True)


def read_bert(path: str, *, lowercase: bool) -> Vocabulary:
  """Reads the WordPiece vocabulary of BERT, one token a line; see `read`."""
  file = textfiles.find(path)
  lines = textfiles.read(file).removesuffix("\n").split("\n")
  vocabulary = {token: line for line, token in enumerate(lines)}
  for line, token in enumerate(lines):
    if not token or vocabulary[token] != line:
      what = f"repeats {token!r}" if token else "is empty"
      raise ValueError(f"{file}, line {line + 1}: {what}; a token a line")
  if "[UNK]" not in vocabulary:
    raise ValueError(f"{file} is not a vocabulary of BERT: it lacks [UNK]")
  tokenizer = _word_pieces(vocabulary, "[UNK]", lowercase=lowercase)
  content = b"%d %s" % (lowercase, file.read_bytes())
  return _loaded(tokenizer, content, vocabulary, by_words=True)


def _loaded(tokenizer, content, named, *, by_words):
  """Returns what `parse` returns."""
  tokenizer.encode_special_tokens = True  # their text is text
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
  return Vocabulary(
    codec=_Codec(tokenizer, by_words=by_words),
    content=content,
    size=max(tokenizer.get_vocab().values(), default=-1) + 1,
    ids=ids,
    sentinels=tuple(sentinels[key] for key in sorted(sentinels)),
  )


def _special(description):
  """Returns the ids of special tokens by name, and the name of the unknown."""
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
  # As in GPT-2, a byte that prints as a character is that character.
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
  """Renames special tokens, lest a model that looks for them finds them."""
  model, hidden = description["model"], {}
  for token in description["added_tokens"]:
    if token["special"] and token["content"] != unknown:
      hidden[token["content"]] = token["content"] = _HIDDEN + token["content"]
  if isinstance(model["vocab"], dict):
    rename = {hidden.get(k, k): v for k, v in model["vocab"].items()}
  else:
    rename = [(hidden.get(k, k), v) for k, v in model["vocab"]]
  model["vocab"] = rename
  for key in ("truncation", "padding", "post_processor"):
    description[key] = None


def train(
  lines: Iterable[str],
  *,
  spec: str,
  vocab_size: int,
  lowercase: bool,
  names: Sequence[str],
) -> bytes:
  """Trains a vocabulary.

  Args:
    lines: what to train on.
    spec: "bpe", byte-level with the word rule of GPT-2, or "wordpiece", with
      the word rule of BERT.
    vocab_size: with the special tokens.
    lowercase: whether text is lowered.
    names: of the special tokens; they come first, "<unk>" among them.

  Returns:
    The content of a `tokenizer.json`.

  Raises:
    ImportError: tokenizers is not installed.
  """
  train = {"bpe": _train_bpe, "wordpiece": _train_word_pieces}[spec]
  tokenizer = train(lines, vocab_size, lowercase, names)
  return tokenizer.to_str(pretty=True).encode()


def _train_bpe(lines, vocab_size, lowercase, names):
  """Byte-level BPE."""
  library = _library()
  tokenizer = library.Tokenizer(library.models.BPE())
  if lowercase:
    tokenizer.normalizer = library.normalizers.Lowercase()
  byte_level = library.pre_tokenizers.ByteLevel
  tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
  tokenizer.decoder = library.decoders.ByteLevel()
  trainer = library.trainers.BpeTrainer(
    vocab_size=vocab_size,
    initial_alphabet=sorted(byte_level.alphabet()),
    special_tokens=list(names),
    show_progress=False,
  )
  tokenizer.train_from_iterator(lines, trainer)
  return tokenizer


def _train_word_pieces(lines, vocab_size, lowercase, names):
  """WordPiece.

  The trainer of the library takes characters in the order of a hash table,
  which differs from run to run, and its ties with them. So what it does, which
  is to train a BPE whose tokens know whether they start a word, is done with
  its trainer of BPE on words with a mark in front.
  """
  library = _library()
  pre_tokenizers = library.pre_tokenizers
  marked = library.Tokenizer(library.models.BPE())
  marked.normalizer = _bert_rules(lowercase)
  marked.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.BertPreTokenizer(),
      pre_tokenizers.Metaspace(replacement=_MARK, split=False),
    ]
  )
  lines = list(lines)
  counts = collections.Counter()
  for line in lines:
    counts.update(marked.normalizer.normalize_str(line))
  characters = sorted(counts, key=lambda c: (-counts[c], c))
  characters = [c for c in characters if not c.isspace()][:_MOST_CHARACTERS]
  trainer = library.trainers.BpeTrainer(
    vocab_size=vocab_size,
    initial_alphabet=[_MARK, *characters],
    limit_alphabet=1 + len(characters),
    show_progress=False,
  )
  marked.train_from_iterator(lines, trainer)
  by_id = sorted((i, token) for token, i in marked.get_vocab().items())
  merged = (
    token[1:] if token[0] == _MARK else f"##{token}"
    for _, token in by_id[1 + len(characters) :]
  )
  tokens = [*names, *characters, *(f"##{c}" for c in characters), *merged]
  smallest = len(names) + 2 * len(characters)
  tokens = list(dict.fromkeys(tokens))[: max(vocab_size, smallest)]
  vocabulary = {token: i for i, token in enumerate(tokens)}
  tokenizer = _word_pieces(vocabulary, "<unk>", lowercase=lowercase)
  tokenizer.add_special_tokens(list(names))
  return tokenizer


def _word_pieces(vocabulary, unknown, *, lowercase):
  """Returns a tokenizer with the rules of BERT."""
  library = _library()
  model = library.models.WordPiece(vocabulary, unk_token=unknown)
  tokenizer = library.Tokenizer(model)
  tokenizer.normalizer = _bert_rules(lowercase)
  tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = library.decoders.WordPiece(cleanup=False)
  return tokenizer


def _bert_rules(lowercase):
  return _library().normalizers.BertNormalizer(lowercase=lowercase)


def _is_ours(description):
  """Whether words are split by a rule that `_BORDER` agrees with."""
  rule = description["pre_tokenizer"] or {}
  byte_level = rule.get("type") == "ByteLevel" and not rule["add_prefix_space"]
  by_words = byte_level or rule.get("type") == "BertPreTokenizer"
  normalizer = description["normalizer"] or {"type": "Lowercase"}
  return by_words and normalizer["type"] in ("Lowercase", "BertNormalizer")


def _library():
  try:
    import tokenizers
  except ImportError as error:
    raise ImportError(
      "sub-word vocabularies need tokenizers: pip install 'bitnet-jax[train]'"
    ) from error
  return tokenizers
