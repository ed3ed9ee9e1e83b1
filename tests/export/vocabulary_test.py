"""Vocabularies as a `tokenizer.json`."""

import json

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.export import vocabulary


def test_names_of_bytes_are_text(tmp_path):
  texts = ["the cat sat on the mat, 12 times", "a > b < c"] * 9
  unigram = load_tokenizer("unigram", texts=lambda: texts, vocab_size=320)
  path = tmp_path / "tokenizer.json"
  path.write_text(json.dumps(vocabulary.describe(unigram)))
  again = load_tokenizer(f"tokenizers:{path}", texts=list)
  for text in ("<0x41>", "x<0x0A> <0xFF", "the<0x20><0x41>", "<0xzz>", "é\0"):
    ids = again.encode(text)
    assert ids.tolist() == unigram.encode(text).tolist()
    assert again.decode(ids) == text
