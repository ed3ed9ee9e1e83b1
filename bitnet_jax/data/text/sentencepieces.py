"""Reads vocabularies of the sentencepiece library from files."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bitnet_jax.data.sources import textfiles
from bitnet_jax.data.text import limits, subwords
from bitnet_jax.data.text.vocabulary import Vocabulary
from bitnet_jax.extras import needed_by
from bitnet_jax.files import read_bytes

FILE_NAME = "tokenizer.model"

_SENTINEL = re.compile(r"▁?<extra_id_(\d+)>")
_ROLES = {
  "<mask>": "mask",
  "[MASK]": "mask",
  "<cls>": "cls",
  "[CLS]": "cls",
  "<sep>": "sep",
  "[SEP]": "sep",
}


_SPACE = "▁"  # how pieces write a space


class _Codec:
  """Codec of a loaded model.

  The library writes a space as U+2581 and reads this character as a space. If a
  model can spell all bytes, a space that is not a piece becomes the byte 0x20,
  and U+2581 becomes its own three bytes.
  """

  def __init__(self, processor, *, spells_all):
    self._processor = processor
    self._spells_all = spells_all
    self._has_space = processor.piece_to_id(_SPACE) != processor.unk_id()

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """Returns the ids of each text."""
    with limits.naming_failures("sentencepiece"):
      return self._ids(list(texts))

  def _ids(self, texts):
    """Returns the ids of each text."""
    if not self._spells_all:
      return self._processor.encode(texts)
    cut = [text.split(_SPACE) for text in texts]
    found = iter(
      self._processor.encode([part for parts in cut for part in parts])
    )
    return [self._joined([next(found) for _ in parts]) for parts in cut]

  def _joined(self, parts):
    """Returns ids of parts of a text, with U+2581 between them."""
    mark, space = self._bytes(_SPACE), self._bytes(" ")
    if not self._has_space:  # Here, these bytes stand for a space.
      parts = [_replaced(ids, mark, space) for ids in parts]
    first, *rest = parts
    return first + [i for ids in rest for i in (*mark, *ids)]

  def _bytes(self, text):
    """Returns the ids of the bytes of a text."""
    pieces = [f"<0x{byte:02X}>" for byte in text.encode()]
    return [self._processor.piece_to_id(piece) for piece in pieces]

  def decode(self, ids: list[int]) -> str:
    """Returns the text of ids."""
    with limits.naming_failures("sentencepiece"):
      return self._processor.decode(ids)

  def describe(self) -> dict[str, Any]:
    """Returns the content of a `tokenizer.json` of a unigram vocabulary.

    Raises:
      ValueError: for other kinds, and for rules that change the text.
    """
    proto = self._processor.serialized_model_proto()
    model = messages().ModelProto.FromString(proto)
    rules = model.normalizer_spec
    if (
      model.trainer_spec.model_type != model.trainer_spec.UNIGRAM
      or rules.precompiled_charsmap
      or rules.add_dummy_prefix
      or rules.remove_extra_whitespaces
    ):
      raise ValueError(
        "a sentencepiece model becomes a tokenizer.json only if it is unigram"
        " and does not normalize text"
      )
    special = [
      subwords.special_token(i, piece.piece)
      for i, piece in enumerate(model.pieces)
      if piece.type in (piece.CONTROL, piece.UNKNOWN)
    ]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return subwords.describe(
      {
        "type": "Unigram",
        "unk_id": self._processor.unk_id(),
        "vocab": [(piece.piece, piece.score) for piece in model.pieces],
        "byte_fallback": model.trainer_spec.byte_fallback,
      },
      added_tokens=special,
      normalizer=space,
      decoder={
        "type": "Sequence",
        "decoders": [
          {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
          {"type": "ByteFallback"},
          {"type": "Fuse"},
        ],
      },
    )


def _replaced(ids, old, new):
  """Returns ids in which one sequence replaces another."""
  if old[0] not in ids:
    return ids
  values = np.array(ids)
  windows = np.lib.stride_tricks.sliding_window_view(values, len(old))
  starts = np.flatnonzero((windows == old).all(axis=1))
  ends = [0, *(starts + len(old))]
  parts = [ids[a:b] for a, b in zip(ends, [*starts, len(ids)], strict=True)]
  return parts[0] + [i for part in parts[1:] for i in (*new, *part)]


def read(path: str) -> Vocabulary:
  """Reads a `.model` file; see `parse`.

  Raises:
    FileNotFoundError: the file does not exist.
    ImportError: sentencepiece is not installed.
    ValueError: it is not a sentencepiece model.
  """
  file = textfiles.find(path)
  data = read_bytes(file, most=limits.LARGEST_MODEL)
  return parse(data, where=str(file))


def parse(data: bytes, *, where: str) -> Vocabulary:
  """Returns the vocabulary of a serialized model.

  Sentinels that the model would read from text, such as those of T5, become
  control tokens, which it does not read from text.

  Args:
    data: the serialized model.
    where: names it in messages.

  Raises:
    ImportError: sentencepiece or protobuf is not installed.
    ValueError: it is not a sentencepiece model, or exceeds a limit in `limits`.
  """
  library = import_library()
  if not data:
    raise ValueError(f"{where} is empty")
  model = _hidden(data, where)
  what = f"{where} is not a model of sentencepiece"
  with limits.naming_failures(what):
    _check(model)
    processor = library.SentencePieceProcessor(
      model_proto=model.SerializeToString()
    )
    size = processor.get_piece_size()
    limits.check_time(processor.encode)
  ids = {
    role: token
    for role in ("pad", "bos", "eos", "unk")
    if (token := getattr(processor, f"{role}_id")()) >= 0
  }
  sentinels = {}
  for token in range(size):
    piece = processor.id_to_piece(token)
    if piece in _ROLES and processor.is_control(token):
      ids.setdefault(_ROLES[piece], token)
    elif match := _SENTINEL.fullmatch(piece):
      sentinels[int(match[1])] = token
  return Vocabulary(
    codec=_Codec(processor, spells_all=_spells_all(model)),
    content=data,
    size=size,
    ids=ids,
    sentinels=tuple(sentinels[key] for key in sorted(sentinels)),
  )


def _check(model):
  """Raises a ValueError for values that the library does not check."""
  for rules in (model.normalizer_spec, model.denormalizer_spec):
    limits.check_character_table(rules.precompiled_charsmap)
  limits.check_length(model.trainer_spec.unk_surface, what="unk_surface")
  if not all(math.isfinite(piece.score) for piece in model.pieces):
    raise ValueError("a piece has a score that is not finite")


def _hidden(data, where):
  """Returns the model with its sentinels as control tokens."""
  with limits.naming_failures(f"{where} is not a model of sentencepiece"):
    model = messages().ModelProto.FromString(data)
    limits.check_ids([len(model.pieces) - 1])
    if not all(isinstance(piece.piece, str) for piece in model.pieces):
      raise ValueError("a piece is not UTF-8")
  for piece in model.pieces:
    if _SENTINEL.fullmatch(piece.piece):
      piece.type = piece.CONTROL
  return model


def _spells_all(model):
  """Whether a model can spell all bytes and keeps spaces."""
  rules = model.normalizer_spec
  return (
    model.trainer_spec.byte_fallback
    and rules.escape_whitespaces
    and not rules.add_dummy_prefix
    and not rules.remove_extra_whitespaces
  )


def messages() -> Any:
  """Returns the protobuf messages of a model."""
  with needed_by("reading a model of sentencepiece", "protobuf"):
    from sentencepiece import sentencepiece_model_pb2
  return sentencepiece_model_pb2  # the import creates its classes


def import_library() -> Any:
  """Imports sentencepiece; an ImportError says what to do."""
  with needed_by("models of sentencepiece", "sentencepiece"):
    import sentencepiece
  return sentencepiece
