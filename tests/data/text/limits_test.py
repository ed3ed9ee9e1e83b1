"""Vocabularies that would take memory, time or the process."""

import base64
import json

import numpy as np
import pytest

from bitnet_jax.data.text import sentencepieces, subwords
from bitnet_jax.data.text.tokenizers import load_tokenizer


def description(*, vocab=None, added=(), **parts):
  """Content of a small `tokenizer.json`."""
  vocab = {"<unk>": 0, "a": 1, "!": 2} if vocab is None else vocab
  model = {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>"}
  content = subwords.describe(model, added_tokens=added, **parts)
  return json.dumps(content).encode()


def replace(old, new):
  return {"type": "Replace", "pattern": old, "content": new}


def sequence(*rules, key="normalizers"):
  return {"type": "Sequence", key: list(rules)}


def split(pattern):
  rule = {"type": "Split", "pattern": {"Regex": pattern}}
  return {**rule, "behavior": "Isolated", "invert": False}


DOUBLED = [replace({"String": "a"}, "aa")] * 30


@pytest.mark.parametrize(
  ("parts", "message"),
  [
    ({"normalizer": sequence(*DOUBLED)}, "one character into up to 1.07e.09"),
    (
      {"normalizer": sequence(sequence(*DOUBLED[:15]), *DOUBLED[:15])},
      "its normalizer turns one character into up to",
    ),
    ({"normalizer": sequence(*[replace({"Regex": ""}, "aa")] * 8)}, "up to"),
    ({"normalizer": replace({"String": "a"}, "b" * 65)}, "content of a rule"),
    ({"normalizer": {"type": "Prepend", "prepend": "b" * 65}}, "prepend"),
    (
      {"decoder": sequence(*DOUBLED, key="decoders")},
      "its decoder turns one character into up to",
    ),
    (
      {"normalizer": sequence(*[{"type": "Lowercase"}] * 65)},
      "more than 64 rules",
    ),
    ({"pre_tokenizer": split("a" * 5000)}, "more than 4096 characters"),
    ({"pre_tokenizer": split("((a{999}){999}){999}")}, "100000 repeats"),
    ({"pre_tokenizer": split("(a+)+$")}, "retry-limit|more than 0.5 s"),
    ({"normalizer": replace({"Regex": "(a|a)*$"}, "b")}, "retry-lim|more than"),
    ({"vocab": {"<unk>": 0, "a": 900_000_000}}, "id 900000000, which must be"),
    (
      {"added": [subwords.special_token(2**32 - 1, "<pad>")]},
      "id 4294967295, which must be",
    ),
    (
      {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
      "character table is truncated",
    ),
    ({"normalizer": {"type": "Lowercase", "type ": [[]]}}, None),
  ],
)
def test_vocabulary_beyond_a_limit_is_refused(tmp_path, parts, message):
  path = tmp_path / "tokenizer.json"
  path.write_bytes(description(**parts))
  if message is None:
    assert load_tokenizer(f"tokenizers:{path}", texts=tuple).vocab_size == 3
    return
  with pytest.raises(ValueError, match=rf"tokenizer\.json.*({message})"):
    load_tokenizer(f"tokenizers:{path}", texts=tuple)


@pytest.mark.parametrize(
  "content",
  [b"[" * 200_000, b'{"a":' * 200_000, b"1" * 5000, b"{}", b"", b"\xff"],
)
def test_damaged_vocabulary_is_named(tmp_path, content):
  path = tmp_path / "tokenizer.json"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
    load_tokenizer(f"tokenizers:{path}", texts=tuple)


def test_patterns_of_known_vocabularies_are_taken():
  llama = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
  )
  data = description(
    pre_tokenizer=split(llama),
    normalizer=sequence(
      {"type": "Prepend", "prepend": "▁"},
      replace({"String": " "}, "▁"),
      {"type": "NFKC"},
    ),
  )
  assert subwords.parse(data, where="it").size == 3


def test_pattern_that_runs_away_over_a_text_is_a_named_error():
  """What Rust raises then is no Exception, which no program would catch."""
  data = description(pre_tokenizer=split(r"(?:zq|zq)+xy|."))
  codec = subwords.parse(data, where="vocabulary").codec
  with pytest.raises(ValueError, match=r"vocabulary: .*retry-limit"):
    codec.encode(["zq" * 40 + "!xy"])


def table(units, text=b"b\0"):
  """A table of characters: a trie, and what its leaves point to."""
  data = np.asarray(units, "<u4").tobytes()
  return len(data).to_bytes(4, "little") + data + text


WILD = np.full(256, 2**20 << 10, np.uint32)  # All lead far outside.
LEAF = np.zeros(256, np.uint32) | np.uint32(2**31 + 5)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (table(WILD), "points outside itself"),
    (table(LEAF), "points outside itself"),
    (table(np.zeros(256), b"b"), "points outside itself"),
    (table(np.zeros(255)), "is truncated"),
    (table(np.zeros(256), b"b" * 65 + b"\0"), "more than 64 bytes"),
    (b"\xff\xff\xff\xff", "is truncated"),
  ],
)
@pytest.mark.parametrize("kind", ["sentencepiece", "tokenizers"])
def test_table_of_characters_that_leads_anywhere_is_refused(
  kind, content, message
):
  """Whatever the release of the library checks."""
  if kind == "tokenizers":
    rule = {"type": "Precompiled"}
    rule["precompiled_charsmap"] = base64.b64encode(content).decode()
    data, parse = description(normalizer=rule), subwords.parse
  else:
    data, parse = small_model(content), sentencepieces.parse
  with pytest.raises(ValueError, match=f"it is not a .*{message}"):
    parse(data, where="it")


def small_model(characters=b"", **trainer):
  """A model of sentencepiece of two pieces."""
  from sentencepiece import sentencepiece_model_pb2 as messages

  model = messages.ModelProto()
  model.pieces.add(piece="<unk>", score=0, type=2)
  model.pieces.add(piece="a", score=-1)
  model.normalizer_spec.precompiled_charsmap = characters
  for key, value in trainer.items():
    setattr(model.trainer_spec, key, value)
  return model.SerializeToString()


def test_small_model_is_read():
  assert sentencepieces.parse(small_model(), where="it").size == 2
  long = small_model(unk_surface="u" * 65)
  with pytest.raises(ValueError, match=r"it is not .*unk_surface is longer"):
    sentencepieces.parse(long, where="it")


def test_piece_that_is_no_text_is_named():
  data = small_model().replace(b"\x0a\x01a", b"\x0a\x01\xff")
  assert data != small_model()
  with pytest.raises(ValueError, match=r"it is not a .*not UTF-8"):
    sentencepieces.parse(data, where="it")


@pytest.mark.parametrize(
  ("key", "limit"), [("num_sentinels", 65536), ("vocab_size", 1048576)]
)
def test_kept_vocabulary_of_millions_of_ids_is_refused(key, limit):
  with pytest.raises(ValueError, match=f"{key} must not be above {limit}"):
    load_tokenizer("bytes", texts=tuple, **{key: 900_000_000})
