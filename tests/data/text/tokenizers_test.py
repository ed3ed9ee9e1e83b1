import json
import pathlib
import string
import sys
from pydoc_data import topics

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

import bitnet_jax
from bitnet_jax.data.text import tokenizers

TEXTS = [topics.topics[name] for name in sorted(topics.topics)[:12]]
TRAINED = ("bpe", "wordpiece", "unigram")
SPECIALS = "<pad> </s> <unk> <s> <mask> <cls> <sep> <extra_id_0> [MASK] [PAD]"


def load(spec, **options):
  if spec in TRAINED:
    options = {"vocab_size": 600} | options
  return tokenizers.load_tokenizer(spec, texts=lambda: TEXTS, **options)


@pytest.fixture(scope="module")
def loaded():
  """One tokenizer of each kind that needs no file."""
  kinds = ("bytes", *TRAINED)
  return {kind: load(kind, num_sentinels=3) for kind in kinds}


@pytest.mark.parametrize("spec", ["bytes", *TRAINED])
def test_ids_and_special_ids_are_apart(loaded, spec):
  tokenizer = loaded[spec]
  roles = [getattr(tokenizer, f"{role}_id") for role in tokenizers.ROLES]
  assert len(tokenizer.sentinels) == 3
  assert sorted([*roles, *tokenizer.sentinels]) == list(tokenizer.special_ids)
  assert tokenizer.special_ids.dtype == np.int32
  for text in [*TEXTS, SPECIALS]:
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.max() < tokenizer.vocab_size
    assert set(ids) & set(tokenizer.special_ids) <= {tokenizer.unk_id}


@pytest.mark.parametrize("spec", ["bytes", "bpe", "unigram"])
@hypothesis.given(
  text=strategies.text()
  | strategies.text(strategies.sampled_from(" \t\n\r\0a<é日▁")),
)
@hypothesis.settings(deadline=None, max_examples=150)
def test_decoding_gives_the_text_back(loaded, spec, text):
  assert loaded[spec].decode(loaded[spec].encode(text)) == text


def test_bytes_are_the_ids():
  tokenizer = load("bytes")
  assert tokenizer.encode("é\n").tolist() == [0xC3, 0xA9, 0x0A]
  assert tokenizer.vocab_size == 256 + 7
  assert tokenizer.decode([0xC3]) == "�"


def test_decoding_leaves_special_tokens_out_but_the_unknown(loaded):
  for spec, tokenizer in loaded.items():
    ids = tokenizer.encode("the of").tolist()
    ids = [tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.sentinels[0]]
    assert tokenizer.decode(ids) == "the of", spec
  words = loaded["wordpiece"]
  ids = words.encode("the 日 of")
  assert (ids == words.unk_id).tolist() == [False, True, False]
  assert words.decode(ids) == "the <unk> of"


def test_word_pieces_have_the_text_rules_of_bert(loaded):
  tokenizer = loaded["wordpiece"]
  ids = tokenizer.encode("THE (thé)\n")
  np.testing.assert_array_equal(ids, tokenizer.encode("the ( the )"))
  cased = load("wordpiece", lowercase=False)
  assert cased.decode(cased.encode("The  THE")) != "the the"
  # "the" starts a word in one text, and stands inside a word in the other.
  (whole,) = tokenizer.encode("the")
  assert whole not in tokenizer.encode("xthe")


@pytest.mark.parametrize("spec", ["bpe", "unigram"])
def test_text_can_be_lowered(spec):
  tokenizer = load(spec, lowercase=True)
  assert tokenizer.decode(tokenizer.encode("The\n OF")) == "the\n of"


@pytest.mark.parametrize("spec", TRAINED)
def test_training_is_deterministic(loaded, spec):
  again = load(spec, num_sentinels=3)
  assert again.fingerprint == loaded[spec].fingerprint
  assert load(spec).fingerprint != loaded[spec].fingerprint


def test_training_on_lower_case_is_deterministic():
  first, again = (load("unigram", lowercase=True) for _ in range(2))
  assert first.fingerprint == again.fingerprint


@pytest.mark.parametrize("spec", TRAINED)
def test_sizes_that_are_asked_for_are_kept(spec):
  tokenizer = load(spec, vocab_size=350, num_sentinels=2)
  assert tokenizer.vocab_size == 350
  length = len(tokenizer.encode(TEXTS[0]))
  assert length < len(TEXTS[0].encode())
  assert len(load(spec, vocab_size=400).encode(TEXTS[0])) <= length


@pytest.mark.parametrize("spec", TRAINED)
def test_small_texts_give_less_which_is_logged(spec, caplog):
  tokenizer = tokenizers.load_tokenizer(
    spec, texts=lambda: ["to be or not to be"] * 3, vocab_size=5000
  )
  assert tokenizer.vocab_size < 400
  assert f"give {tokenizer.vocab_size} tokens for {spec}, not" in caplog.text


@pytest.mark.parametrize("spec", TRAINED)
def test_too_small_a_vocabulary_is_an_error(spec):
  with pytest.raises(
    ValueError, match=r"vocab_size=20 (is too small|cannot be)"
  ):
    load(spec, vocab_size=20)


@pytest.mark.parametrize("spec", TRAINED)
def test_cache_gives_what_was_trained(tmp_path, spec, loaded):
  first = load(spec, num_sentinels=3, cache=tmp_path / "run")
  files = sorted(path.name for path in (tmp_path / "run").iterdir())
  name = "tokenizer.model" if spec == "unigram" else "tokenizer.json"
  assert files == sorted([name, "tokenizer_source.json"])
  assert first.fingerprint == loaded[spec].fingerprint
  before = (tmp_path / "run" / name).stat().st_mtime_ns
  again = load(spec, num_sentinels=3, cache=tmp_path / "run")
  assert again.fingerprint == first.fingerprint
  assert (tmp_path / "run" / name).stat().st_mtime_ns == before
  kind = "sentencepiece" if spec == "unigram" else "tokenizers"
  other = load(f"{kind}:{tmp_path / 'run' / name}")
  assert other.fingerprint == first.fingerprint
  assert other.special_ids.tolist() == first.special_ids.tolist()
  for text in TEXTS:
    np.testing.assert_array_equal(other.encode(text), first.encode(text))


def test_cache_of_something_else_is_an_error(tmp_path):
  load("bpe", cache=tmp_path)
  for options, message in (
    (dict(vocab_size=500), "vocab_size was 600 and is 500"),
    (dict(num_sentinels=1), "num_sentinels was 0 and is 1"),
    (dict(lowercase=True), "lowercase was False and is True"),
  ):
    with pytest.raises(ValueError, match=message):
      load("bpe", cache=tmp_path, **options)
  with pytest.raises(ValueError, match="spec was 'bpe' and is 'unigram'"):
    load("unigram", cache=tmp_path)
  with pytest.raises(ValueError, match=r"texts was '[0-9a-f]{64}' and is"):
    tokenizers.load_tokenizer(
      "bpe", texts=lambda: TEXTS[1:], vocab_size=600, cache=tmp_path
    )


def test_damaged_cache_is_an_error_and_an_unfinished_one_is_redone(tmp_path):
  first = load("bpe", cache=tmp_path)
  file, record = tmp_path / "tokenizer.json", tmp_path / "tokenizer_source.json"
  content = file.read_bytes()
  file.write_bytes(content + b" ")
  with pytest.raises(ValueError, match=r"tokenizer\.json is not the file that"):
    load("bpe", cache=tmp_path)
  file.unlink()
  with pytest.raises(FileNotFoundError, match=r"tokenizer\.json, which is not"):
    load("bpe", cache=tmp_path)
  kept = record.read_bytes()
  record.write_text("[]")
  with pytest.raises(ValueError, match="is not the record of a tokenizer"):
    load("bpe", cache=tmp_path)
  record.unlink()
  file.write_bytes(b"half")
  assert load("bpe", cache=tmp_path).fingerprint == first.fingerprint
  assert record.read_bytes() == kept


def test_long_texts_are_cut_for_speed_only(loaded):
  text = "\n".join(TEXTS) + "  x" * 9000 + "é" * 40_000 + " a\t b" * 9000
  for spec in ("bpe", "wordpiece"):
    tokenizer = loaded[spec]
    whole = tokenizer.codec._tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.encode(text).tolist() == whole.ids


def test_texts_are_encoded_to_one_array(loaded):
  tokenizer = loaded["bpe"]
  ragged = tokenizer.encode_ragged(TEXTS)
  assert len(ragged) == len(TEXTS)
  assert ragged.values.dtype == np.int32
  assert ragged.offsets.dtype == np.int64
  for i in (0, 7, -1):
    np.testing.assert_array_equal(ragged[i], tokenizer.encode(TEXTS[i]))
  np.testing.assert_array_equal(
    ragged.lengths, [len(ids) for ids in tokenizer.encode_batch(TEXTS)]
  )
  assert len(tokenizer.encode_ragged([])) == 0
  with pytest.raises(ValueError, match="document 1 is empty: '' has no token"):
    tokenizer.encode_ragged(["a", "", "b"], where="document")


@pytest.mark.parametrize("bad", [-1, 263])
def test_id_outside_the_vocabulary_is_an_error(bad):
  message = rf"id {bad} at index 2 is outside the vocabulary, 0\.\.262"
  with pytest.raises(ValueError, match=message):
    load("bytes").decode([1, 2, bad])


def test_what_is_needed_gets_ids_at_the_end(tmp_path):
  path = bert_vocabulary(tmp_path)
  plain = load(f"bert:{path}")
  assert (plain.pad_id, plain.bos_id, plain.sentinels) == (0, None, ())
  with pytest.raises(ValueError, match=r"packing needs a token bos.*\(\"bos\""):
    plain.need("bos", purpose="packing")
  given = load(f"bert:{path}", needs=("bos", "pad", "eos"), num_sentinels=2)
  size = plain.vocab_size
  assert (given.pad_id, given.eos_id, given.bos_id) == (0, size, size + 1)
  assert given.sentinels == (size + 2, size + 3)
  assert given.vocab_size == size + 4
  assert given.need("bos", purpose="packing") == size + 1
  assert given.decode([size, *given.encode("he said"), size + 3]) == "he said"
  assert given.fingerprint != plain.fingerprint


def bert_vocabulary(folder):
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "he", "said", "##s"]
  path = folder / "vocab.txt"
  path.write_text("\n".join([*tokens, "He", "é", "["]) + "\n")
  return path


def test_bert_vocabulary_is_read(tmp_path):
  path = bert_vocabulary(tmp_path)
  tokenizer = load(f"bert:{path}")
  assert tokenizer.encode("He saids [MASK]").tolist() == [5, 6, 7, 10, 1, 1]
  special = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
  assert special == (2, 3, 4)
  cased = load(f"bert:{path}", lowercase=False)
  assert cased.encode("He é").tolist() == [8, 9]
  assert cased.fingerprint != tokenizer.fingerprint


def test_gpt2_files_are_read(tmp_path):
  vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
  tokens = ["h", "e", "l", "o", "Ġ", "he", "ll", "<|endoftext|>", "<", "|"]
  vocab.write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
  merges.write_text("#version: 0.2\nh e\nl l\n")
  tokenizer = load(f"gpt2:{vocab},{merges}")
  assert tokenizer.encode("hello he").tolist() == [5, 6, 3, 4, 5]
  assert tokenizer.eos_id == 7
  assert tokenizer.pad_id is None
  assert 7 not in tokenizer.encode("<|endoftext|>")
  with pytest.raises(ValueError, match="are not vocabulary and merges"):
    load(f"gpt2:{merges},{vocab}")


def test_special_text_is_hidden_from_models_that_look_for_it(tmp_path):
  library = pytest.importorskip("tokenizers")
  letters = [(c, -3.0) for c in [*string.ascii_lowercase, "▁", "<", ">"]]
  model = library.models.Unigram(
    [("<unk>", 0.0), ("<mask>", 0.0), *letters], unk_id=0
  )
  made = library.Tokenizer(model)
  made.add_special_tokens(["<mask>", "</s>"])
  made.pre_tokenizer = library.pre_tokenizers.Metaspace()
  made.decoder = library.decoders.Metaspace()
  made.post_processor = library.processors.TemplateProcessing(
    single="$A </s>", special_tokens=[("</s>", 31)]
  )
  made.enable_truncation(4)
  made.save(str(tmp_path / "tokenizer.json"))
  tokenizer = load(f"tokenizers:{tmp_path}/tokenizer.json")
  assert (tokenizer.mask_id, tokenizer.eos_id, tokenizer.unk_id) == (1, 31, 0)
  assert tokenizer.vocab_size == 32
  ids = tokenizer.encode("a <mask> b")
  assert len(ids) == 11
  assert not set(ids) & {1, 31}
  assert tokenizer.decode(ids) == "a <mask> b"


def test_sentinels_of_sentencepiece_are_not_read_from_text(tmp_path):
  import sentencepiece

  sentinels = [f"▁<extra_id_{i}>" for i in (2, 1, 0)]  # as T5 has them
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXTS[0].split("\n")),
    model_prefix=str(tmp_path / "t5"),
    vocab_size=100,
    user_defined_symbols=[*sentinels, "<cls>"],
    control_symbols=["<mask>"],
    minloglevel=2,
  )
  path = tmp_path / "t5.model"
  plain = sentencepiece.SentencePieceProcessor(model_file=str(path))
  tokenizer = load(f"sentencepiece:{path}")
  ids = tuple(plain.piece_to_id(piece) for piece in reversed(sentinels))
  assert tokenizer.sentinels == ids
  assert tokenizer.mask_id == plain.piece_to_id("<mask>")
  assert tokenizer.cls_id is None  # a piece of text, which it says it is
  text = "the <extra_id_1> of <mask>"
  assert set(plain.encode(text)) & {*ids}
  assert not set(tokenizer.encode(text)) & {*tokenizer.special_ids} - {
    tokenizer.unk_id
  }
  assert tokenizer.encode("the of").tolist() == plain.encode("the of")


@pytest.mark.parametrize(
  ("spec", "options", "message"),
  [
    ("byte", {}, "unknown tokenizer 'byte'; choose among bytes, bpe"),
    ("bytes:x", {}, "unknown tokenizer 'bytes:x'"),
    ("bert", {}, "unknown tokenizer 'bert'; .*bert:VOCAB.txt"),
    ("gpt2:a.json", {}, "gpt2:VOCAB.json,MERGES.txt"),
    ("bpe", dict(vocab_size=None), "bpe needs a positive vocab_size"),
    ("bpe", dict(vocab_size=0), "positive vocab_size, it is 0"),
    ("bytes", dict(num_sentinels=-1), "must not be negative, it is -1"),
    ("bytes", dict(needs=("end",)), "needs is 'end', .* not one of: 'pad'"),
    ("bytes", dict(lowercase=True), "lowercase=True does not apply to bytes"),
    ("bytes", dict(vocab_size=256), "is 256, but bytes has 263 tokens"),
  ],
)
def test_impossible_arguments_are_errors(spec, options, message):
  with pytest.raises(ValueError, match=message):
    load(spec, **options)


@pytest.mark.parametrize(
  "spec", ["sentencepiece:{}", "tokenizers:{}", "gpt2:{0},{0}", "bert:{}"]
)
def test_files_that_are_not_there_or_something_else_are_errors(tmp_path, spec):
  with pytest.raises(FileNotFoundError, match=r"there is no file .*/none"):
    load(spec.format(tmp_path / "none"))
  for content in (b"", b"{}", b'{"model": 3}', b"\xff\xfe\x00"):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path}/other"):
      load(spec.format(tmp_path / "other"))


def test_repeated_token_of_bert_is_an_error_with_its_line(tmp_path):
  (tmp_path / "vocab.txt").write_text("[UNK]\na\nb\na\n")
  with pytest.raises(ValueError, match=r"vocab\.txt, line 2: repeats 'a'"):
    load(f"bert:{tmp_path / 'vocab.txt'}")
  (tmp_path / "vocab.txt").write_text("[UNK]\n\nb\n")
  with pytest.raises(ValueError, match=r"vocab\.txt, line 2: is empty"):
    load(f"bert:{tmp_path / 'vocab.txt'}")


@pytest.mark.parametrize("spec", ["bpe", "unigram"])
def test_missing_library_is_an_error_with_the_remedy(spec, monkeypatch):
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  monkeypatch.setitem(sys.modules, "sentencepiece", None)
  with pytest.raises(ImportError, match=r"pip install 'bitnet-jax\[train\]'"):
    load(spec)


def test_published_vocabularies_give_published_ids(data_dir):
  folder = data_dir / "tokenizers"
  gpt2 = load(f"gpt2:{folder}/gpt2_vocab.json,{folder}/gpt2_merges.txt")
  assert gpt2.encode("Hello world").tolist() == [15496, 995]
  assert gpt2.decode([15496, 995]) == "Hello world"
  assert (gpt2.vocab_size, gpt2.eos_id) == (50257, 50256)
  bert = load(f"bert:{folder}/bert_base_uncased_vocab.txt")
  assert bert.encode("hello world").tolist() == [7592, 2088]
  assert bert.vocab_size == 30522
  ids = (bert.pad_id, bert.unk_id, bert.cls_id, bert.sep_id, bert.mask_id)
  assert ids == (0, 100, 101, 102, 103)


def test_models_of_sentencepiece_read_text_as_the_library_does(data_dir):
  import sentencepiece

  text = pathlib.Path(bitnet_jax.__file__).with_name("choices.py").read_text()
  for path in sorted((data_dir / "tokenizers").glob("*.model")):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = load(f"sentencepiece:{path}")
    assert tokenizer.vocab_size == processor.get_piece_size()
    assert tokenizer.eos_id == processor.eos_id()
    ids = processor.encode(text)
    assert tokenizer.encode(text).tolist() == ids
    assert tokenizer.decode(ids) == processor.decode(ids)
  t5 = load(
    f"sentencepiece:{data_dir}/tokenizers/{'t5_cc_all_32000_100extra'}"
    ".sentencepiece.model"
  )
  assert (t5.pad_id, t5.eos_id, t5.bos_id, t5.unk_id) == (0, 1, 2, 3)
  assert t5.sentinels == tuple(range(32100, 32000, -1))
  assert 32100 not in t5.encode("hello <extra_id_0>")


def test_vocabulary_may_have_room_for_nothing():
  tokenizer = load("bytes", vocab_size=264)
  assert tokenizer.vocab_size == 264
  ids = tokenizer.encode("é")
  assert tokenizer.decode([*ids, 263]) == "é\N{REPLACEMENT CHARACTER}"
  with pytest.raises(ValueError, match="vocab_size is 255, but bytes has 263"):
    load("bytes", vocab_size=255)


def test_ids_that_stand_for_nothing_are_known(tmp_path, loaded):
  assert loaded["bpe"].unused == ()
  tokenizer = load("bytes", vocab_size=265)
  assert tokenizer.unused == (263, 264)
  assert tokenizer.unused_ids(267).tolist() == [263, 264, 265, 266]
  model = tmp_path / "m.model"
  codec = loaded["unigram"].codec
  model.write_bytes(codec._processor.serialized_model_proto())
  size = loaded["unigram"].vocab_size
  tokenizer = load(f"sentencepiece:{model}", vocab_size=size + 1)
  assert tokenizer.unused == (size,)
  ids = tokenizer.encode("to be").tolist()
  assert tokenizer.decode([*ids, size]) == "to be\N{REPLACEMENT CHARACTER}"
  path = tmp_path / "tokenizer.json"
  vocabulary = {"a": 0, "b": 3, "<unk>": 5}
  model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
  path.write_text(json.dumps({"version": "1.0", "model": model} | EMPTY))
  tokenizer = load(f"tokenizers:{path}", needs=("eos",))
  assert tokenizer.vocab_size == 7
  assert tokenizer.unused == (1, 2, 4)


EMPTY = {
  "added_tokens": [],
  **dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder")),
  **dict.fromkeys(("truncation", "padding")),
}


def test_many_texts_are_encoded_in_parts(monkeypatch):
  tokenizer = load("bytes")
  texts = [f"text {i}" for i in range(10)]
  whole = tokenizer.encode_ragged(texts)
  monkeypatch.setattr(tokenizers, "_PART", 3)
  parts = tokenizer.encode_ragged(texts)
  np.testing.assert_array_equal(parts.values, whole.values)
  np.testing.assert_array_equal(parts.offsets, whole.offsets)
  with pytest.raises(ValueError, match="text 8 is not text"):
    tokenizer.encode_ragged([*texts[:8], "\ud800"])
