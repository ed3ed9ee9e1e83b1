"""Vocabularies in a file of llama.cpp."""

from typing import Any

from bitnet_jax.data.tokenizers import Tokenizer
from bitnet_jax.export import vocabulary

# Kinds of tokens, by llama.cpp's numbers.
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED = 1, 2, 3, 5
# A merge of what no text has: llama.cpp reads no vocabulary without merges.
_NO_MERGE = "\u2042 \u2042"


def write(writer: Any, tokenizer: Tokenizer | None, vocab_size: int) -> None:
  """Adds a vocabulary to what is written.

  Args:
    writer: a ``gguf.GGUFWriter``.
    tokenizer: the vocabulary, or ``None``.
    vocab_size: of the model, which may be more.

  Raises:
    ValueError: for a vocabulary that llama.cpp reads differently.
  """
  if tokenizer is None:
    writer.add_tokenizer_model("none")
    return
  description = vocabulary.describe(tokenizer)
  model = description["model"]
  if model["type"] != "BPE" or not _is_byte_level(description):
    raise ValueError(
      f"gguf cannot hold a vocabulary {model['type']}, which llama.cpp reads"
      " differently; 'bytes', 'bpe' and 'gpt2:...' work"
    )
  names = vocabulary.names_of(description)
  special = {t["id"] for t in description["added_tokens"] if t["special"]}
  kinds = [
    _UNUSED if i not in names else _CONTROL if i in special else _NORMAL
    for i in range(vocab_size)
  ]
  if tokenizer.unk_id is not None:
    kinds[tokenizer.unk_id] = _UNKNOWN
  merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre("gpt-2")
  writer.add_token_merges(merges or [_NO_MERGE])
  writer.add_token_list(
    [names.get(i, f"<unused_{i}>") for i in range(vocab_size)]
  )
  writer.add_token_types(kinds)
  if tokenizer.eos_id is not None:
    # A text starts after the token that ends another.
    writer.add_bos_token_id(tokenizer.eos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_add_bos_token(value=True)
  if tokenizer.pad_id is not None:
    writer.add_pad_token_id(tokenizer.pad_id)
  if tokenizer.unk_id is not None:
    writer.add_unk_token_id(tokenizer.unk_id)


def _is_byte_level(description) -> bool:
  rules = description["pre_tokenizer"] or {}
  return (
    rules.get("type") == "ByteLevel"
    and not rules.get("add_prefix_space")
    and description["normalizer"] is None
  )
