"""Vocabularies beside a model."""

import pytest

from bitnet_jax.data.text.saved import keep_vocabulary, load_kept
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
  entry = keep_vocabulary(tokenizer, spec, model, cache=run)
  for file in run.iterdir():
    file.unlink()
  kept = load_kept(entry, model)
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
  entry = keep_vocabulary(
    tokenizer,
    spec.format(run),
    model,
    cache=run,
    lowercase=options.get("lowercase"),
  )
  kept = load_kept(entry, model)
  assert kept.vocab_size == tokenizer.vocab_size
  assert kept.encode("the Cat").tolist() == tokenizer.encode("the Cat").tolist()


def test_other_vocabulary_is_refused(folders):
  run, model = folders
  entry = keep_vocabulary(
    load("bpe", run, vocab_size=300), "bpe", model, cache=run
  )
  with pytest.raises(ValueError, match="another than the model was trained"):
    load_kept({**entry, "fingerprint": "sha256:0"}, model)
  with pytest.raises(ValueError, match="kind is 'pickle'"):
    load_kept({**entry, "kind": "pickle"}, model)
  with pytest.raises(ValueError, match=r"damaged: KeyError\('kind'\)"):
    load_kept({}, model)
  (model / "tokenizer.json").unlink()
  with pytest.raises(FileNotFoundError):
    load_kept(entry, model)
