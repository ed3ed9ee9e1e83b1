"""Small vocabularies to export."""

import json
import random
import unicodedata
from pydoc_data import topics

from bitnet_jax.data.text import subwords
from bitnet_jax.data.text.tokenizers import load_tokenizer

# The last is of two words.
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("1", "2"), ("o", "Ġ")]
ADDED = ("<tool>", "New York", "🙂🙂")


def token(name, **more):
  """Returns an added token, not a special one but for what ``more`` says."""
  return subwords.special_token(0, name) | {"special": False} | more


def make(
  path, *, added=(), rules=None, eos=True, without=(), words=(), **model
):
  """Returns a byte-level BPE with some merges, of a file at ``path``.

  Args:
    path: of the file.
    added: added tokens, or names of such.
    rules: of the split into words.
    eos: whether it has a token that ends a text.
    without: bytes that it lacks, as characters.
    words: tokens that no merge makes.
    **model: of the BPE.
  """
  content = subwords.describe_bytes()
  vocabulary = content["model"]["vocab"]
  for name in ("".join(pair) for pair in [*MERGES, *words]):
    vocabulary[name] = len(vocabulary)
  size = len(vocabulary)
  for name in without:
    del vocabulary[name]
  content["model"] |= {"merges": MERGES} | model
  content["pre_tokenizer"] |= {"use_regex": True} | (rules or {})
  ends = [subwords.special_token(0, "<|endoftext|>")] if eos else []
  tokens = [t if isinstance(t, dict) else token(t) for t in added]
  for i, one in enumerate([*ends, *tokens]):
    content["added_tokens"].append(one | {"id": size + i})
  path.write_text(json.dumps(content))
  return load_tokenizer(f"tokenizers:{path}", texts=tuple)


def texts(count):
  """Returns texts with spaces, digits, emoji, added tokens, any characters."""
  rng, found = random.Random(0), []
  english = [topics.topics[name] for name in sorted(topics.topics)]
  for i in range(count):
    text = rng.choice(english)
    start = rng.randrange(len(text))
    pieces_of_text = [
      text[start : start + 40],
      *rng.sample([*ADDED, " 1234 ", "<|endoftext|>", "\u3000", "'ll"], 3),
      *(chr(rng.randrange(1, 0x3000)) for _ in range(i % 8)),
      *(chr(rng.randrange(1, 0x110000)) for _ in range(i % 4)),
    ]
    rng.shuffle(pieces_of_text)
    known = [c for c in "".join(pieces_of_text) if _is_known(c)]
    found.append("".join(known))
  return found


def _is_known(character):
  """Whether it is a character in every version of Unicode."""
  return unicodedata.category(character) not in ("Cn", "Co", "Cs")
