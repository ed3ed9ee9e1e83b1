"""Vocabularies in files of llama.cpp, without it."""

import gguf
import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.export import gguf_vocabulary, write_gguf
from tests.export import vocabularies
from tests.export.decoder import BITNET, make_frozen
from tests.export.vocabularies import ADDED, token


def write(tokenizer, name="mine"):
  """Writes a vocabulary nowhere."""
  writer = gguf.GGUFWriter(None, "llama", use_temp_file=False)
  gguf_vocabulary.write(writer, tokenizer, 300, name)


@pytest.fixture(scope="module")
def bitnet():
  return make_frozen(**BITNET)


def test_added_tokens_are_found_in_texts(tmp_path, bitnet):
  tokenizer = vocabularies.make(tmp_path / "tokenizer.json", added=ADDED)
  write_gguf(tmp_path / "m.gguf", *bitnet, tokenizer=tokenizer)
  fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
  tokens = fields["tokenizer.ggml.tokens"].contents()
  kinds = fields["tokenizer.ggml.token_type"].contents()
  by_name = dict(zip(tokens, kinds, strict=True))
  assert [by_name[name] for name in ADDED] == [4, 4, 4]
  assert by_name["<|endoftext|>"] == 3
  assert by_name["the"] == 1
  ids = tokenizer.encode("call <tool> in New York").tolist()
  assert [tokens[i] for i in ids if tokens[i] in ADDED] == [*ADDED[:2]]


@pytest.mark.parametrize("change", ["kind", "merges", "rules"])
def test_files_that_are_read_differently_are_refused(
  tmp_path, bitnet, monkeypatch, change
):
  """Also where none of the reasons below is known."""
  options = {}
  if change == "kind":  # as if added tokens were others
    monkeypatch.setattr(gguf_vocabulary, "_ADDED", 1)
  elif change == "merges":
    options = {"ignore_merges": True, "words": ["Ġfox"], "added": ()}
  else:
    options = {"rules": {"use_regex": False}}
  monkeypatch.setattr(gguf_vocabulary, "_needs", lambda *_: [])
  options = {"added": ADDED} | options
  tokenizer = vocabularies.make(tmp_path / "tokenizer.json", **options)
  with pytest.raises(ValueError, match=r"in .*m\.gguf, the vocabulary reads"):
    write_gguf(tmp_path / "m.gguf", *bitnet, tokenizer=tokenizer)
  assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"rules": {"use_regex": False}}, "merges across words .*use_regex"),
    ({"ignore_merges": True}, "ignore_merges of its vocabulary is True"),
    ({"end_of_word_suffix": "</w>"}, "end_of_word_suffix .* is '</w>'"),
    ({"rules": {"add_prefix_space": True}}, "a vocabulary of type BPE, which"),
    ({"without": ["!", "~"]}, "lacks 2 of the 256 bytes"),
    ({"eos": False}, "no token eos"),
    ({"added": [token("<a>", lstrip=True)]}, r"'<a>' has \['lstrip'\]"),
    ({"added": [token("a", single_word=True)]}, r"has \['single_word'\]"),
    ({"added": ["one two", "two three"]}, "'one two' and .*'two three'"),
    (
      {"added": ["long name", token("name", normalized=True)]},
      r"'long name' and \['name'\] may overlap",
    ),
    (
      {"added": ["<EOT>", "<|im_end|>"]},
      "are not special, but llama.cpp treats",
    ),
    (
      {"added": [token("<|start|>", special=True)]},
      r"tokens \['<\|start\|>'\] are special, but",
    ),
    (
      {"added": [token(f"<|{n}|>", special=True) for n in ("end", "return")]},
      r"tokens \['<\|end\|>'\] are special, but",
    ),
  ],
)
def test_vocabularies_that_are_read_differently_are_refused(
  tmp_path, options, message
):
  tokenizer = vocabularies.make(tmp_path / "tokenizer.json", **options)
  with pytest.raises(ValueError, match=f"gguf cannot hold .*{message}"):
    write(tokenizer)


def test_names_of_other_models_are_refused(tmp_path):
  tokenizer = vocabularies.make(tmp_path / "tokenizer.json")
  write(tokenizer)
  with pytest.raises(ValueError, match=r"its name is 'My-Phi-3', and llama"):
    write(tokenizer, "My-Phi-3")


def test_words_do_not_matter_where_nothing_is_merged(tmp_path):
  write(load_tokenizer("bytes", texts=tuple))
  path = tmp_path / "tokenizer.json"
  write(vocabularies.make(path, merges=[], rules={"use_regex": False}))


def test_ids_that_stand_for_nothing_have_names_of_their_own(tmp_path, bitnet):
  added = [token("<unused_264>")]
  tokenizer = vocabularies.make(tmp_path / "tokenizer.json", added=added)
  write_gguf(tmp_path / "m.gguf", *bitnet, tokenizer=tokenizer)
  fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
  tokens = fields["tokenizer.ggml.tokens"].contents()
  assert len(set(tokens)) == len(tokens) == 265
  assert tokens[264] == "_<unused_264>"
