"""Exported vocabularies in transformers, where it is installed."""

import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.export import write_hf
from tests.export import decoder, vocabularies

transformers = pytest.importorskip("transformers")

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings("ignore"),  # of a library without PyTorch
]
STRIPPED = [
  vocabularies.token("<tool>", lstrip=True),
  vocabularies.token("New York", single_word=True),
  vocabularies.token("'ll", normalized=True),
]
FILES = {
  "added": {"added": vocabularies.ADDED},
  "stripped": {"added": STRIPPED},
  "prefix": {"rules": {"add_prefix_space": True}},
  "across": {"rules": {"use_regex": False}},
  "ignored": {"ignore_merges": True, "words": ["Ġfor"]},
}


def make(path, spec):
  if spec in FILES:
    return vocabularies.make(path, **FILES[spec])
  spec, _, lower = spec.partition("-")
  texts = vocabularies.texts(100)
  size = None if spec == "bytes" else 2500
  lowercase = True if lower else None
  return load_tokenizer(
    spec, texts=lambda: texts, vocab_size=size, lowercase=lowercase
  )


@pytest.mark.parametrize("is_bitnet", [True, False])
@pytest.mark.parametrize(
  "spec", ["bytes", "bpe", "bpe-lower", "wordpiece", "unigram", *FILES]
)
def test_texts_are_read_as_ours_are(tmp_path, spec, is_bitnet):
  tokenizer = make(tmp_path / "tokenizer.json", spec)
  sizes = {"sub_norm": is_bitnet, "vocab_size": tokenizer.vocab_size + 3}
  model = decoder.make_frozen(**sizes)
  write_hf(tmp_path / "hf", *model, tokenizer=tokenizer)
  found = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
  texts = vocabularies.texts(1000)
  different = [
    text
    for text in texts
    if found(text).input_ids != [tokenizer.eos_id, *tokenizer.encode(text)]
  ]
  # Of equally likely pieces of a unigram vocabulary either may be taken.
  assert len(different) <= (0.02 * len(texts) if spec == "unigram" else 0)
