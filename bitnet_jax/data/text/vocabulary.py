"""Vocabularies: special tokens, and codecs between text and token ids."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

# Roles of special tokens, in their order in trained vocabularies.
ROLES = ("pad", "eos", "unk", "bos", "mask", "cls", "sep")


class Codec(Protocol):
  """Turns text into token ids and back, without special tokens."""

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """Returns the ids of each text; no text becomes a special token."""
    ...

  def decode(self, ids: list[int]) -> str:
    """Returns the text of ids; none is special except the unknown token."""
    ...

  def describe(self) -> dict[str, Any]:
    """Returns the vocabulary as the content of a `tokenizer.json`.

    Raises:
      ValueError: such a file cannot describe this codec.
    """
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
  """A vocabulary as it was read or trained.

  Attributes:
    codec: turns text into ids and back.
    content: distinguishes this vocabulary from others.
    size: ids are in [0, size).
    ids: ids of special tokens, by role.
    sentinels: ids of the sentinels in the order of use.
    unused: ids below ``size`` without a token.
  """

  codec: Codec
  content: bytes
  size: int
  ids: Mapping[str, int]
  sentinels: tuple[int, ...]
  unused: tuple[int, ...] = ()
