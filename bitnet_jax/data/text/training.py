"""Trains subword vocabularies and saves them in the run folder.

Equal texts give equal vocabularies.
"""

import collections
import hashlib
import io
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from bitnet_jax.data import splits
from bitnet_jax.data.text import limits, sentencepieces, subwords
from bitnet_jax.data.text.vocabulary import ROLES, Vocabulary
from bitnet_jax.files import read_bytes, read_json

# Precedes the words on which WordPiece is trained. BERT's text rules remove
# this kind of character.
_MARK = "\ue000"
_MOST_CHARACTERS = 1000  # that WordPiece spells; rarer ones are unknown
_RECORD = "tokenizer_source.json"


def load_or_train(
  options: Mapping[str, Any],
  texts: Callable[[], Iterable[str]],
  cache: pathlib.Path | None,
) -> Vocabulary:
  """Returns a vocabulary of the cache, or trains it and saves it there.

  Args:
    options: "spec", "vocab_size", "num_sentinels" and "lowercase", as
      `tokenizers.load_tokenizer` takes them.
    texts: returns the training texts.
    cache: the folder to save it in; `None` to save nothing.

  Raises:
    ValueError: the size is too small, or the cache holds a vocabulary that was
      trained differently.
  """
  spec = options["spec"]
  library = sentencepieces if spec == "unigram" else subwords
  record = {**options, "texts": splits.digest(texts())}
  data = None
  if cache is not None:
    data = _find(cache, library.FILE_NAME, record)
  if data is None:
    names = [f"<{role}>" for role in ROLES]
    names += [f"<extra_id_{i}>" for i in range(options["num_sentinels"])]
    data = train(
      _lines(texts()),
      spec=spec,
      vocab_size=options["vocab_size"],
      lowercase=options["lowercase"],
      names=names,
    )
    if cache is not None:
      _save(cache, library.FILE_NAME, data, record)
  found = library.parse(data, where=f"the trained {spec}")
  size, asked = found.size, options["vocab_size"]
  if size > asked:
    raise ValueError(
      f"vocab_size={asked} is too small for {spec}: characters and special"
      f" tokens alone are {size}"
    )
  if size < asked:
    logging.warning(
      "The texts give %d tokens for %s, not the vocab_size=%d asked for",
      size,
      spec,
      asked,
    )
  return found


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
    lines: training text.
    spec: "bpe", byte-level with the word rule of GPT-2; "wordpiece", with the
      word rule of BERT; or "unigram", which spells every text, down to its
      bytes.
    vocab_size: size, including the special tokens.
    lowercase: whether to convert text to lower case.
    names: names of the special tokens, in the order of `ROLES`; they come
      first.

  Returns:
    The content of a `tokenizer.json`, or for "unigram" the serialized model.

  Raises:
    ImportError: tokenizers or sentencepiece is not installed.
    ValueError: for "unigram", the size is too small, or there is nothing to
      train on.
  """
  if spec == "unigram":
    return _train_unigram(lines, vocab_size, lowercase, names)
  trainer = {"bpe": _train_bpe, "wordpiece": _train_wordpiece}[spec]
  tokenizer = trainer(lines, vocab_size, lowercase, names)
  return tokenizer.to_str(pretty=True).encode()


def _lines(texts):
  """Yields texts line by line, since training counts words only."""
  for text in texts:
    yield from (line + "\n" for line in text.split("\n") if line)


def _train_bpe(lines, vocab_size, lowercase, names):
  """Trains a byte-level BPE."""
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


def _train_wordpiece(lines, vocab_size, lowercase, names):
  """Trains a WordPiece vocabulary.

  The library's own WordPiece trainer visits characters in the order of a hash
  table, which varies from run to run and decides ties. It trains a BPE whose
  tokens are marked as starting a word or not. Training the library's BPE on
  words with a mark in front does the same, reproducibly.
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
  tokenizer = subwords.wordpiece_tokenizer(
    vocabulary, "<unk>", lowercase=lowercase
  )
  tokenizer.add_special_tokens(list(names))
  return tokenizer


def _train_unigram(lines, vocab_size, lowercase, names) -> bytes:
  """Trains a unigram vocabulary.

  Training uses one thread, because several threads add sums in varying order,
  which changes the vocabulary.
  """
  output = io.BytesIO()
  with tempfile.TemporaryDirectory() as folder:
    rules = {"normalization_rule_name": "identity"}
    if lowercase:
      rules = {"normalization_rule_tsv": _lower_rules(folder)}
    try:
      sentencepieces.import_library().SentencePieceTrainer.train(
        sentence_iterator=(line.rstrip("\n") for line in lines),
        model_writer=output,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        byte_fallback=True,
        **rules,
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        max_sentence_length=2**30,
        num_threads=1,
        minloglevel=2,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=3,
        pad_piece=names[0],
        eos_piece=names[1],
        unk_piece=names[2],
        bos_piece=names[3],
        control_symbols=list(names[4:]),
      )
    except RuntimeError as error:
      raise ValueError(
        f"unigram with vocab_size={vocab_size} cannot be trained on these"
        f" texts: {error}"
      ) from error
  data = output.getvalue()
  model = sentencepieces.messages().ModelProto.FromString(data)
  if not model.normalizer_spec.normalization_rule_tsv:
    return data
  # It names a temporary file.
  model.normalizer_spec.ClearField("normalization_rule_tsv")
  return model.SerializeToString()


def _lower_rules(folder):
  """Writes the lower-case rules of all characters; returns the path.

  The rules that sentencepiece has would turn line feeds into spaces.
  """
  path = pathlib.Path(folder) / "lower.tsv"
  upper = [c for c in map(chr, range(sys.maxunicode + 1)) if c.lower() != c]
  path.write_text(
    "".join(
      f"{ord(c):X}\t{' '.join(f'{ord(low):X}' for low in c.lower())}\n"
      for c in upper
    )
  )
  return str(path)


def _find(folder: pathlib.Path, name: str, record: Mapping) -> bytes | None:
  """Returns a saved vocabulary with the same record, `None` if there is none.

  The record is written last and holds the hash of the file. A file without its
  record was left by an interrupted write, and is trained again.
  """
  path = folder / _RECORD
  if not path.is_file():
    return None
  try:
    saved = read_json(path)
    sha256 = saved.pop("sha256")
  except (ValueError, TypeError, AttributeError, KeyError) as error:
    raise ValueError(f"{path} is not the record of a tokenizer") from error
  different = [
    f"{key} was {saved.get(key)!r} and is {record.get(key)!r}"
    for key in sorted({*saved, *record})
    if saved.get(key) != record.get(key)
  ]
  if different:
    raise ValueError(
      f"the tokenizer in {folder} was trained differently:"
      f" {'; '.join(different)}; use another folder, or remove {path}"
    )
  file = folder / name
  if not file.is_file():
    raise FileNotFoundError(f"{path} names {file}, which is not there")
  data = read_bytes(file, most=limits.LARGEST_VOCABULARY)
  if hashlib.sha256(data).hexdigest() != sha256:
    raise ValueError(f"{file} is not the file that {path} describes")
  return data


def _save(folder: pathlib.Path, name: str, data: bytes, record: Mapping):
  """Writes a vocabulary, then its record, each in one move."""
  folder.mkdir(parents=True, exist_ok=True)
  record = {**record, "sha256": hashlib.sha256(data).hexdigest()}
  for path, content in (
    (folder / name, data),
    (folder / _RECORD, (json.dumps(record, indent=2) + "\n").encode()),
  ):
    # Processes that share a folder write to different files.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
