"""The vocabulary of the 256 bytes of UTF-8, which needs no file."""

from collections.abc import Sequence
from typing import Any

from bitnet_jax.data.text import subwords
from bitnet_jax.data.text.vocabulary import ROLES, Vocabulary


class _Codec:
  """Codec whose ids are the bytes of UTF-8."""

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """See `Codec`."""
    return [list(text.encode()) for text in texts]

  def decode(self, ids: list[int]) -> str:
    """See `Codec`; what is not UTF-8 or no byte becomes U+FFFD."""
    values = (i if i < 256 else 0xFF for i in ids)
    return bytes(values).decode(errors="replace")

  def describe(self) -> dict[str, Any]:
    """See `Codec`; a byte-level BPE that merges nothing."""
    return subwords.describe_bytes()


def vocabulary(num_sentinels: int) -> Vocabulary:
  """Returns the bytes, then the special tokens, then the sentinels."""
  first = 256 + len(ROLES)
  size = first + num_sentinels
  return Vocabulary(
    codec=_Codec(),
    content=b"bytes",
    size=size,
    ids=dict(zip(ROLES, range(256, first), strict=True)),
    sentinels=tuple(range(first, size)),
  )
