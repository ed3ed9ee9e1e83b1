"""Writes vocabularies to GGUF files for llama.cpp."""

import collections
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from bitnet_jax.data.text import saved, subwords
from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.export import decoders
from bitnet_jax.export.decoders import Need

# Kinds of tokens, by llama.cpp's numbers.
_NORMAL, _UNKNOWN, _CONTROL, _ADDED, _UNUSED = 1, 2, 3, 4, 5
# A merge that applies to no text; llama.cpp requires at least one merge.
_NO_MERGE = "\u2042 \u2042"
# llama.cpp treats some tokens by their names, whatever the file says. It treats
# these as special; most of them end a text.
_SPECIAL_BY_NAME = frozenset(
  "<|eot_id|> <|im_end|> <|end|> <end_of_turn> <|endoftext|> <|end_of_text|> "
  "<EOT> _<EOT> [EOT] <\uff5cend▁of▁sentence\uff5c> <end_of_utterance> "
  "<|eom_id|> <|return|> <|call|> <|calls|> <|flush|> </s> [EOS] <eos> "
  "<turn|> <|tool_response> [e~[ <|fim_prefix|> <fim-prefix> <fim_prefix> "
  "<\uff5cfim▁begin\uff5c> <PRE> ▁<PRE> <|code_prefix|> <|prefix|> "
  "<|fim_suffix|> <fim-suffix> <fim_suffix> <\uff5cfim▁hole\uff5c> <SUF> "
  "▁<SUF> <|code_suffix|> <|suffix|> <|fim_middle|> <fim-middle> <fim_middle> "
  "<\uff5cfim▁end\uff5c> <MID> ▁<MID> <|code_middle|> <|middle|> <|fim_pad|> "
  "<fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> "
  "<REPO> <reponame> <|file_sep|>".split()
)
# It treats these as text, ...
_TEXT_BY_NAME = frozenset(
  "<|channel|> <|message|> <|start|> <|constrain|>".split()
)
# ... and also the first token of each pair, if one of the others exists.
_TEXT_BESIDE = (
  ("<|end|>", frozenset(("<|return|>", "<|flush|>"))),
  ("</s>", frozenset(("<|tool_response>", "<|plamo:eos|>"))),
)
# If a model's name contains one of these, its tokens take the spaces around
# them.
_MODELS_BY_NAME = ("phi-3", "phi3", "modern-bert")


def write(
  writer: Any, tokenizer: Tokenizer | None, vocab_size: int, name: str
) -> None:
  """Adds a vocabulary to a GGUF file.

  Args:
    writer: a ``gguf.GGUFWriter``.
    tokenizer: the vocabulary, or ``None``.
    vocab_size: number of ids of the model, which may exceed the vocabulary.
    name: name of the model.

  Raises:
    ValueError: for a vocabulary that llama.cpp reads differently.
  """
  if tokenizer is None:
    writer.add_tokenizer_model("none")
    return
  description = saved.describe(tokenizer)
  names = saved.names_of(description)
  _check_kind(description)
  decoders.refuse("gguf", _needs(tokenizer, description, names, name))
  kinds = _kinds(tokenizer, description, names)
  names |= _unused_names(names, vocab_size)
  merges = description["model"]["merges"]
  merges = [m if isinstance(m, str) else " ".join(m) for m in merges]
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre("gpt-2")
  writer.add_token_merges(merges or [_NO_MERGE])
  writer.add_token_list([names[i] for i in range(vocab_size)])
  writer.add_token_types([kinds.get(i, _UNUSED) for i in range(vocab_size)])
  # A text starts after the token that ends the previous text.
  writer.add_bos_token_id(tokenizer.eos_id)
  writer.add_eos_token_id(tokenizer.eos_id)
  writer.add_add_bos_token(value=True)
  if tokenizer.pad_id is not None:
    writer.add_pad_token_id(tokenizer.pad_id)
  if tokenizer.unk_id is not None:
    writer.add_unk_token_id(tokenizer.unk_id)


def _check_kind(description) -> None:
  rules, kind = description["pre_tokenizer"] or {}, description["model"]["type"]
  is_byte_level = (
    rules.get("type") == "ByteLevel"
    and not rules.get("add_prefix_space")
    and description["normalizer"] is None
  )
  if kind != "BPE" or not is_byte_level:
    raise ValueError(
      f"gguf cannot hold a vocabulary of type {kind}, which llama.cpp reads"
      " differently; 'bytes', 'bpe' and 'gpt2:...' work"
    )


def _needs(
  tokenizer: Tokenizer,
  description: Mapping[str, Any],
  names: Mapping[int, str],
  name: str,
) -> Iterator[Need]:
  """Yields the needs for llama.cpp to read texts as a byte-level BPE does."""
  model, rules = description["model"], description["pre_tokenizer"]
  yield (
    bool(rules.get("use_regex", True)) or not model["merges"],
    "its vocabulary merges across words (use_regex is False), where llama.cpp"
    " splits texts into words first",
  )
  for key in (
    *("ignore_merges", "continuing_subword_prefix", "end_of_word_suffix"),
  ):
    yield (
      not model.get(key),
      f"{key} of its vocabulary is {model.get(key)!r}, which llama.cpp lacks",
    )
  missing = subwords.describe_bytes()["model"]["vocab"].keys() - model["vocab"]
  yield not missing, f"its vocabulary lacks {len(missing)} of the 256 bytes"
  yield (
    tokenizer.eos_id is not None,
    "its vocabulary has no token eos, for which llama.cpp would take id 11",
  )
  yield (
    len(set(names.values())) == len(names),
    "two tokens of its vocabulary have one name",
  )
  yield from _added_needs(description["added_tokens"])
  yield from _name_needs(description["added_tokens"], set(names.values()))
  taken = [part for part in _MODELS_BY_NAME if part in name.lower()]
  yield (
    not taken,
    f"its name is {name!r}, and llama.cpp reads the tokens of models named"
    f" {taken} differently",
  )


def _added_needs(added) -> Iterator[Need]:
  """Yields the needs of added tokens that may occur in texts."""
  texts = [token for token in added if not token["special"]]
  for token in texts:
    flags = [n for n in ("single_word", "lstrip", "rstrip") if token[n]]
    yield (
      not flags,
      f"its added token {token['content']!r} has {flags}, which llama.cpp"
      " lacks",
    )
  # If tokens overlap in a text, llama.cpp takes the longest. Other libraries
  # take the first, and one that is not normalized before one that is.
  normalized = {token["content"]: token["normalized"] for token in texts}
  starts = collections.defaultdict(set)
  for name in normalized:
    for end in range(1, len(name)):
      starts[name[:end]].add(name)
  for name, is_normalized in normalized.items():
    parts = {name[i:] for i in range(1, len(name))}
    tied = set().union(*(starts[part] for part in parts if part in starts))
    inside = {
      part
      for i, j in itertools.combinations(range(len(name) + 1), 2)
      if normalized.get(part := name[i:j], is_normalized) != is_normalized
    }
    others = sorted((tied | inside) - {name})
    yield (
      not others,
      f"its added tokens {name!r} and {others} may overlap in a text, which"
      " llama.cpp reads differently",
    )


def _name_needs(added, names) -> Iterator[Need]:
  """Yields the needs of tokens that llama.cpp treats by their names."""
  special = {token["content"] for token in added if token["special"]}
  by_name = sorted(_SPECIAL_BY_NAME & (names - special))
  yield (
    not by_name,
    f"its tokens {by_name} are not special, but llama.cpp treats these names as"
    " special",
  )
  beside = {one for one, others in _TEXT_BESIDE if others & names}
  by_name = sorted((_TEXT_BY_NAME | beside) & special)
  yield (
    not by_name,
    f"its tokens {by_name} are special, but llama.cpp treats these names as"
    " text",
  )


def _kinds(tokenizer, description, names) -> dict[int, int]:
  """Returns the kinds of tokens by id."""
  kinds = dict.fromkeys(names, _NORMAL)
  for token in description["added_tokens"]:
    kinds[token["id"]] = _CONTROL if token["special"] else _ADDED
  if tokenizer.unk_id is not None:
    kinds[tokenizer.unk_id] = _UNKNOWN
  return kinds


def _unused_names(names, vocab_size) -> dict[int, str]:
  """Returns unique names for ids without a token."""
  taken = set(names.values())
  start = next(
    text
    for n in itertools.count()
    if not any(
      other.startswith(text := "_" * n + "<unused_") for other in taken
    )
  )
  return {i: f"{start}{i}>" for i in range(vocab_size) if i not in names}


def check_read_back(path: Any, fields: Mapping[str, Any], tokenizer: Tokenizer):
  """Raises a ValueError unless llama.cpp reads texts as the vocabulary does.

  The tokenizers library simulates what llama.cpp does with the file.

  Args:
    path: path of the file, for the message.
    fields: its fields, from a ``gguf.GGUFReader``.
    tokenizer: the vocabulary.
  """
  library = subwords.import_library()
  tokens, kinds, merges = (
    fields[f"tokenizer.ggml.{key}"].contents()
    for key in ("tokens", "token_type", "merges")
  )
  merges = [tuple(m.split(" ", 1)) for m in merges if m != _NO_MERGE]
  ids = {token: i for i, token in enumerate(tokens)}
  other = library.Tokenizer(library.models.BPE(vocab=ids, merges=merges))
  other.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
  known = [t for t, kind in zip(tokens, kinds, strict=True) if kind == _ADDED]
  other.add_tokens([library.AddedToken(t, normalized=False) for t in known])
  special = [tokens[i] for i in tokenizer.special_ids]
  saved.compare(f"in {path}", other, tokenizer, [*known, *special])
