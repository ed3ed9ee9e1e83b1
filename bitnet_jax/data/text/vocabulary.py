"""Codecs and vocabularies of tokenizers, and files of trained ones."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bitnet_jax.data.text.limits import LARGEST_VOCABULARY
from bitnet_jax.files import read_bytes, read_json

# What a special token is for; those of trained vocabularies, in this order.
ROLES = ("pad", "eos", "unk", "bos", "mask", "cls", "sep")

_RECORD = "tokenizer_source.json"


class Codec(Protocol):
  """What turns text into ids and back, special tokens left aside."""

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """Returns the ids of each text; no text becomes a special token."""
    ...

  def decode(self, ids: list[int]) -> str:
    """Returns the text of ids, none of which is special but the unknown."""
    ...

  def describe(self) -> dict[str, Any]:
    """Returns the vocabulary as the content of a `tokenizer.json`.

    Raises:
      ValueError: such a file cannot say what this codec does.
    """
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
  """What was read or trained.

  Attributes:
    codec: turns text into ids and back.
    content: tells this vocabulary from others.
    size: ids are in [0, size).
    ids: of special tokens, by role.
    sentinels: ids of the sentinels in the order of their use.
    unused: ids below ``size`` that stand for nothing.
  """

  codec: Codec
  content: bytes
  size: int
  ids: Mapping[str, int]
  sentinels: tuple[int, ...]
  unused: tuple[int, ...] = ()


def recall(folder: pathlib.Path, name: str, record: Mapping) -> bytes | None:
  """Returns what was trained from just this, `None` if there is nothing.

  The record is written last and holds the hash of the file, so that a file
  without its record is what an interrupted write left: it is made anew.
  """
  path = folder / _RECORD
  if not path.is_file():
    return None
  try:
    kept = read_json(path)
    sha256 = kept.pop("sha256")
  except (ValueError, TypeError, AttributeError, KeyError) as error:
    raise ValueError(f"{path} is not the record of a tokenizer") from error
  different = [
    f"{key} was {kept.get(key)!r} and is {record.get(key)!r}"
    for key in sorted({*kept, *record})
    if kept.get(key) != record.get(key)
  ]
  if different:
    raise ValueError(
      f"the tokenizer in {folder} was trained from something else:"
      f" {'; '.join(different)}; take another folder, or remove {path}"
    )
  file = folder / name
  if not file.is_file():
    raise FileNotFoundError(f"{path} speaks of {file}, which is not there")
  data = read_bytes(file, most=LARGEST_VOCABULARY)
  if hashlib.sha256(data).hexdigest() != sha256:
    raise ValueError(f"{file} is not the file that {path} speaks of")
  return data


def keep(folder: pathlib.Path, name: str, data: bytes, record: Mapping) -> None:
  """Writes a vocabulary, then its record."""
  folder.mkdir(parents=True, exist_ok=True)
  record = {**record, "sha256": hashlib.sha256(data).hexdigest()}
  _write(folder / name, data)
  _write(folder / _RECORD, (json.dumps(record, indent=2) + "\n").encode())


def _write(path, data):
  """Writes a file in one move; processes that share a folder do not clash."""
  temporary = path.with_name(f".{path.name}.{os.getpid()}")
  temporary.write_bytes(data)
  os.replace(temporary, path)
