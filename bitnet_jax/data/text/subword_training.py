"""Training of the vocabularies of the library tokenizers."""

import collections
from collections.abc import Iterable, Sequence

from bitnet_jax.data.text import subwords

# Stands before the words from which WordPiece is trained. No text of BERT has
# a character of this kind.
_MARK = "\ue000"
_MOST_CHARACTERS = 1000  # that WordPiece spells; rarer ones are unknown


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
  library = subwords.import_library()
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
  library = subwords.import_library()
  pre_tokenizers = library.pre_tokenizers
  marked = library.Tokenizer(library.models.BPE())
  marked.normalizer = subwords.bert_rules(lowercase)
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
  tokenizer = subwords.word_pieces(vocabulary, "<unk>", lowercase=lowercase)
  tokenizer.add_special_tokens(list(names))
  return tokenizer
