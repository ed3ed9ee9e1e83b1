"""Whatever is read as text comes back as text, in every kind of vocabulary."""

import json
import logging
import string

import hypothesis
import pytest
from hypothesis import strategies

from bitnet_jax.data.text import subwords, tokenizers

SPACED = ["the cat sat on the mat, 12 times", "New York is <b>new</b>"] * 9
SPACELESS = ["thecatsatonthemat", "againandagain"] * 9
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
BYTE_LEVEL |= {"trim_offsets": True}
WORDS = BYTE_LEVEL | {"use_regex": False}
# Texts with what vocabularies treat apart: spaces, specials, added tokens.
PARTS = ("New York", " ", "  ", "▁", "\0", "<tag>", "\n", "e", "the", "</s>")
PARTS += ("<pad>", "<0x41>", "<extra_id_0>", "é", "日", "\ufeff", "e\u0301")
TEXTS = strategies.lists(
  strategies.sampled_from(PARTS) | strategies.text(max_size=3), max_size=12
).map("".join)


def load(spec, texts=SPACED, **options):
  if spec not in ("bytes",) and ":" not in spec:
    options = {"vocab_size": 400} | options
  return tokenizers.load_tokenizer(spec, texts=lambda: texts, **options)


def added(token, content, **flags):
  flags = {"special": False, "normalized": True} | flags
  return subwords.special_token(token, content) | flags


def bpe(**changes):
  """A byte-level BPE whose merges cross spaces, with tokens that were added."""
  description = subwords.describe_bytes()
  model = description["model"]
  for a, b in (("t", "h"), ("th", "e"), ("e", "Ġ"), ("Ġ", "t"), ("s", "a")):
    model["vocab"].setdefault(a + b, len(model["vocab"]))
    model["merges"].append([a, b])
  size = len(model["vocab"])
  model |= changes.pop("model", {})
  tokens = changes.pop("tokens", [])
  description["added_tokens"] = [
    subwords.special_token(size, "</s>"),
    *(token | {"id": size + 1 + i} for i, token in enumerate(tokens)),
  ]
  return description | {"pre_tokenizer": BYTE_LEVEL} | changes


def unigram(*scored, **changes):
  pairs = [(c, -3.0) for c in [*string.ascii_letters, "▁", "<", ">", "/"]]
  vocab = [("<unk>", 0.0), ("</s>", 0.0), *pairs, *scored]
  return subwords.describe(
    {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False},
    added_tokens=[subwords.special_token(1, "</s>")],
    **{"pre_tokenizer": {"type": "Metaspace", "replacement": "▁"}}
    | {"decoder": {"type": "Metaspace", "replacement": "▁"}}
    | changes,
  )


def save(folder, description):
  path = folder / "tokenizer.json"
  path.write_text(json.dumps(description))
  return f"tokenizers:{path}"


# Vocabularies whose words are split by other rules than `_BORDER` knows, and
# some whose are not.
CROSSING = {
  "words": {},
  "lower": {"normalizer": {"type": "Lowercase"}},
  "no words": {"pre_tokenizer": WORDS},
  "ignored merges": {"model": {"ignore_merges": True}},
  "added with a space": {"tokens": [added(0, "New York")]},
  "added with a line feed": {"tokens": [added(0, "e\nthe", normalized=False)]},
  "strips behind": {"tokens": [added(0, "<tag>", rstrip=True)]},
  "strips before": {"tokens": [added(0, "<tag>", lstrip=True)]},
  "single word": {"tokens": [added(0, "the", single_word=True)]},
  "bert": {
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "normalizer": {"type": "BertNormalizer", "lowercase": True}
    | {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None},
    "tokens": [added(0, "日"), added(0, "the")],
  },
}


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
  """Vocabularies by name, each twice: cut at every chance, and never."""
  found = {}
  for name, changes in CROSSING.items():
    spec = save(tmp_path_factory.mktemp("crossing"), bpe(**changes))
    whole = load(spec)
    whole.codec._by_words = False
    found[name] = load(spec), whole
  return found


def test_encoding_in_parts_is_encoding_whole(crossing, monkeypatch):
  monkeypatch.setattr(subwords, "_PART", 1)

  @hypothesis.given(text=TEXTS)
  @hypothesis.settings(deadline=None, max_examples=60, database=None)
  @hypothesis.example(text="x New York")
  @hypothesis.example(text="the the sat <tag> the sat e\nthe")
  def check(text):
    for name, (cut, whole) in crossing.items():
      found, expected = cut.encode(text).tolist(), whole.encode(text).tolist()
      assert found == expected, name

  check()
  assert crossing["words"][0].codec._by_words  # The faster way is still taken.
  assert crossing["single word"][0].codec._by_words


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
  """Vocabularies that have the bytes of every text."""
  found = {kind: load(kind, num_sentinels=2) for kind in ("bytes", "bpe")}
  found |= {
    "unigram": load("unigram", num_sentinels=2),
    "unigram without spaces": load("unigram", SPACELESS, vocab_size=330),
  }
  for name, changes in CROSSING.items():
    if name not in ("lower", "bert") and not name.startswith("strips"):
      spec = save(tmp_path_factory.mktemp("spelling"), bpe(**changes))
      found[f"file, {name}"] = load(spec)
  return found


def test_decoding_gives_back_what_can_be_spelled(spelling):
  @hypothesis.given(text=TEXTS)
  @hypothesis.settings(deadline=None, max_examples=60, database=None)
  @hypothesis.example(text="a b▁c ▁ ")
  def check(text):
    for name, tokenizer in spelling.items():
      ids = tokenizer.encode(text)
      assert tokenizer.decode(ids) == text, name
      assert not {*ids.tolist()} & {*tokenizer.special_ids.tolist()}, name

  check()


def test_space_that_is_no_piece_is_its_byte(spelling):
  tokenizer = spelling["unigram without spaces"]
  byte = [tokenizer.encode(c).tolist() for c in (" ", "\x01")]
  assert byte[0][0] - byte[1][0] == 0x20 - 1
  assert len(tokenizer.encode("▁")) == 3


NAMES = ("</s>", "\0</s>", "\0\0</s>", "a\0</s>b")


@pytest.mark.parametrize(
  "description",
  [
    unigram(),
    unigram(("\0", -4.0)),
    subwords.describe(
      {"type": "WordLevel", "unk_token": "<unk>"}
      | {"vocab": {"<unk>": 0, "</s>": 1, "a": 2}},
      added_tokens=[subwords.special_token(1, "</s>")],
      pre_tokenizer={"type": "WhitespaceSplit"},
    ),
    subwords.describe(
      {"type": "WordPiece", "unk_token": "<unk>"}
      | {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
      | {"vocab": {"<unk>": 0, "</s>": 1, "a": 2, "##b": 3}},
      added_tokens=[subwords.special_token(1, "</s>")],
      pre_tokenizer={"type": "WhitespaceSplit"},
    ),
  ],
  ids=["unigram", "unigram with NUL", "words", "word pieces"],
)
def test_no_text_is_a_special_token(tmp_path, description):
  tokenizer = load(save(tmp_path, description))
  assert tokenizer.eos_id == 1
  shown = tokenizer.codec.describe()["added_tokens"][0]["content"]
  assert shown == "</s>"
  for name in NAMES:
    assert 1 not in tokenizer.encode(name), name


def test_what_is_random_or_cuts_in_a_file_is_off(tmp_path, caplog):
  description = bpe(model={"dropout": 0.5})
  description |= {
    "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0}
    | {"direction": "Right"},
    "padding": {"strategy": {"Fixed": 99}, "direction": "Right"}
    | {"pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    | {"pad_token": "!"},
    "post_processor": {"type": "BertProcessing", "sep": ["</s>", 261]}
    | {"cls": ["</s>", 261]},
  }
  tokenizer = load(save(tmp_path, description))
  text = "the cat sat on the mat " * 9
  assert len({tuple(tokenizer.encode(text)) for _ in range(20)}) == 1
  plain = load(save(tmp_path, bpe()))
  assert tokenizer.encode(text).tolist() == plain.encode(text).tolist()
  assert "has dropout=0.5, which makes tokens random" in caplog.text


def test_fraction_of_unknown_tokens_is_logged(caplog):
  caplog.set_level(logging.INFO, logger="absl")
  tokenizer = load("wordpiece")
  tokenizer.encode_ragged(["the cat " * 200 + "b" * 101], where="page")
  tokenizer.encode_ragged(["t" * 40_000] * 5, where="line")
  few, many = caplog.records[-2:]
  assert few.levelname == "INFO"
  assert "page: 0.25 % of the tokens are unknown, 1 of 401" in few.message
  assert many.levelname == "WARNING"
  assert "line: 100.00 % of the tokens are unknown, 5 of 5" in many.message


def test_characters_that_would_be_left_out_are_a_warning(tmp_path, caplog):
  load(save(tmp_path, bpe()))
  assert "dropped" not in caplog.text
  model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
  tokenizer = load(save(tmp_path, subwords.describe(model)))
  assert tokenizer.encode("abc").tolist() == [0, 1]
  assert "characters that it lacks are dropped from texts" in caplog.text


def test_half_a_surrogate_pair_is_an_error_that_names_its_text(spelling):
  for tokenizer in spelling.values():
    with pytest.raises(ValueError, match=r"text 1 is not text: .*surrogates"):
      tokenizer.encode_batch(["a", "b\ud800"])
