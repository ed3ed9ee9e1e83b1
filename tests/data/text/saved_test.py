"""Vocabularies beside a model, and as a ``tokenizer.json``."""

import json

import pytest

from bitnet_jax.data.text.saved import (
  describe,
  load_vocabulary,
  save_vocabulary,
)
from bitnet_jax.data.text.tokenizers import load_tokenizer

TEXTS = ["The cat sat on the mat.", "A dog ate the cat's food.", "é 1 2 3"] * 9


@pytest.fixture
def folders(tmp_path):
  found = tmp_path / "run", tmp_path / "model"
  for folder in found:
    folder.mkdir()
  return found


def load(spec, run, **options):
  options = {"num_sentinels": 2, "cache": run} | options
  return load_tokenizer(spec, texts=lambda: TEXTS, **options)


@pytest.mark.parametrize(
  ("spec", "options"),
  [
    ("bytes", {}),
    ("bpe", {"vocab_size": 300}),
    ("bpe", {"vocab_size": 300, "lowercase": True}),
    ("wordpiece", {"vocab_size": 60}),
    ("unigram", {"vocab_size": 300}),
  ],
)
def test_vocabulary_is_used_without_the_texts(folders, spec, options):
  run, model = folders
  tokenizer = load(spec, run, **options)
  entry = save_vocabulary(tokenizer, spec, model, cache=run)
  for file in run.iterdir():
    file.unlink()
  kept = load_vocabulary(entry, model)
  assert kept.fingerprint == tokenizer.fingerprint
  assert kept.sentinels == tokenizer.sentinels
  for text in TEXTS[:3]:
    assert kept.encode(text).tolist() == tokenizer.encode(text).tolist()


@pytest.mark.parametrize(
  ("spec", "options"),
  [
    ("tokenizers:{}/tokenizer.json", {"needs": ("mask",), "vocab_size": 320}),
    ("bert:{}/words", {"lowercase": False, "needs": ("eos",)}),
    ("bert:{}/words", {}),
  ],
)
def test_vocabulary_of_a_file_is_copied(folders, spec, options):
  run, model = folders
  load("bpe", run, vocab_size=300)
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "Cat", "cat"]
  (run / "words").write_text("\n".join(words))
  tokenizer = load(spec.format(run), run, cache=None, **options)
  entry = save_vocabulary(
    tokenizer,
    spec.format(run),
    model,
    cache=run,
    lowercase=options.get("lowercase"),
  )
  kept = load_vocabulary(entry, model)
  assert kept.vocab_size == tokenizer.vocab_size
  assert kept.encode("the Cat").tolist() == tokenizer.encode("the Cat").tolist()


def test_folder_may_have_a_comma_in_its_name(tmp_path):
  files, model = tmp_path / "a,b", tmp_path / "rate=1,width=2"
  files.mkdir()
  model.mkdir()
  tokens = ["h", "e", "he", "<|endoftext|>"]
  vocabulary = {token: i for i, token in enumerate(tokens)}
  (files / "v.json").write_text(json.dumps(vocabulary))
  (files / "m.txt").write_text("#version: 0.2\nh e\n")
  spec = f"gpt2:{files}/v.json,{files}/m.txt"
  tokenizer = load_tokenizer(spec, texts=tuple)
  entry = save_vocabulary(tokenizer, spec, model)
  assert load_vocabulary(entry, model).encode("he").tolist() == [2]


def test_other_vocabulary_is_refused(folders):
  run, model = folders
  entry = save_vocabulary(
    load("bpe", run, vocab_size=300), "bpe", model, cache=run
  )
  with pytest.raises(ValueError, match="not the one that the model was"):
    load_vocabulary({**entry, "fingerprint": "sha256:0"}, model)
  with pytest.raises(ValueError, match="kind is 'pickle'"):
    load_vocabulary({**entry, "kind": "pickle"}, model)
  with pytest.raises(ValueError, match=r"damaged: KeyError\('kind'\)"):
    load_vocabulary({}, model)
  (model / "tokenizer.json").unlink()
  with pytest.raises(FileNotFoundError):
    load_vocabulary(entry, model)


def test_names_of_bytes_are_text(tmp_path):
  texts = ["the cat sat on the mat, 12 times", "a > b < c"] * 9
  unigram = load_tokenizer("unigram", texts=lambda: texts, vocab_size=320)
  path = tmp_path / "tokenizer.json"
  path.write_text(json.dumps(describe(unigram)))
  again = load_tokenizer(f"tokenizers:{path}", texts=list)
  for text in ("<0x41>", "x<0x0A> <0xFF", "the<0x20><0x41>", "<0xzz>", "é\0"):
    ids = again.encode(text)
    assert ids.tolist() == unigram.encode(text).tolist()
    assert again.decode(ids) == text


def test_run_copies_a_vocabulary_under_a_name_of_its_own(folders):
  run, mine = folders
  load("bpe", mine, vocab_size=300)
  (run / "tokenizer.json").write_text("mine")
  spec = f"tokenizers:{mine}/tokenizer.json"
  tokenizer = load(spec, None)
  entry = save_vocabulary(tokenizer, spec, run)
  (mine / "tokenizer.json").unlink()
  again = load_vocabulary(json.loads(json.dumps(entry)), run)
  assert again.fingerprint == tokenizer.fingerprint
  assert (run / "tokenizer.json").read_text() == "mine"
  with pytest.raises(ValueError, match=r"prefix is '\.\./'"):
    load_vocabulary({**entry, "prefix": "../"}, run)


def test_run_leaves_what_it_trained_where_it_is(folders):
  run, _ = folders
  tokenizer = load("bpe", run, vocab_size=300)
  before = {path.name for path in run.iterdir()}
  entry = save_vocabulary(tokenizer, "bpe", run)
  assert {path.name for path in run.iterdir()} == before
  assert load_vocabulary(entry, run).fingerprint == tokenizer.fingerprint
