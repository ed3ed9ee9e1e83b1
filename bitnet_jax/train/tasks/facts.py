"""Facts of the data that decide a model: class counts, vocabulary, shapes.

A run writes these facts beside its config, so that its model can be opened
without its data.
"""

import dataclasses
import math
from collections.abc import Mapping, Sized
from typing import Any

import jax
import numpy as np

from bitnet_jax import choices
from bitnet_jax.construct import construct
from bitnet_jax.data import splits as split_names

# Limits for files that may be untrusted: sizes of a model, and elements of an
# example, which is one row, or a whole graph. Of the latter only the shape is
# used.
_MOST = 2**31 - 1
_MOST_ELEMENTS = 2**40
_DTYPES = ("uint8", "int32", "float32")
# Keys that older files lack, with the values that they then have.
LATER: Mapping[str, Any] = {"features": (), "bag": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArraySpec:
  """Shape and dtype of an array."""

  shape: tuple[int, ...]
  dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitFacts:
  """Sizes of a split.

  Attributes:
    examples: number of examples.
    words: number of words, where a likelihood per word is reported; else 0.
    bytes: length of its text in UTF-8, likewise.
  """

  examples: int
  words: int = 0
  bytes: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagFacts:
  """How documents become bags of subword tokens, see ``bag_of_words``.

  Attributes:
    tokenizer: fingerprint of the vocabulary.
    ids: ids of the subword tokens that have a row in the embedding, ascending.
    idf: inverse document frequency of each of them; empty for the weighting
      "mean".
  """

  tokenizer: str
  ids: tuple[int, ...]
  idf: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
  """What the data decided, as plain numbers and strings.

  Attributes:
    fingerprint: names data and vocabulary by content or version, never by path.
    splits: sizes by split name, among "train", "valid" and "test".
    example: the arrays of a batch of one example.
    num_classes: number of classes, 1 for regression; ``None`` for tokens.
    class_names: names of the classes, if the source has them; all different.
    features: names of the columns that make an input, if the source has them:
      features of "classification", texts of tasks on labeled texts and pairs.
    bag: of "documents".
    vocab_size: number of tokens; ``None`` where the model takes none.
    start_id: first token that the decoder of an encoder-decoder reads; ``None``
      for other models.
    mean: subtracted from the inputs of "classification": one number, or one per
      channel (or feature).
    std: divides these inputs, likewise.
    batches_per_epoch: batches of one pass through the training split, where a
      batch never spans two passes; else ``None``.
  """

  fingerprint: str = ""
  splits: Mapping[str, SplitFacts] = dataclasses.field(default_factory=dict)
  example: Mapping[str, ArraySpec] = dataclasses.field(default_factory=dict)
  num_classes: int | None = None
  class_names: tuple[str, ...] = ()
  vocab_size: int | None = None
  start_id: int | None = None
  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()
  batches_per_epoch: int | None = None
  features: tuple[str, ...] = ()
  bag: BagFacts | None = None

  @property
  def num_examples(self) -> int:
    """Number of training examples."""
    return self.splits["train"].examples

  def names_of_classes(self) -> tuple[str, ...]:
    """Returns a name for each class: its number where there is no other."""
    return self.class_names or (*map(str, range(self.num_classes or 0)),)

  def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns a batch of one example, as shapes."""
    return {
      name: jax.ShapeDtypeStruct(spec.shape, spec.dtype)
      for name, spec in self.example.items()
    }

  def to_json(self) -> dict[str, Any]:
    """Returns the facts as the content of a JSON file."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, content: Any, where: str) -> "DataFacts":
    """Returns the facts in the content of a JSON file, which may be untrusted.

    Args:
      content: what ``to_json`` returned.
      where: names the file in messages.

    Raises:
      ValueError: for an unknown or missing key, or a value of another type or
        out of range, naming file, key and value.
    """
    try:
      nested = content
      if isinstance(content, Mapping):
        nested = {**LATER, **content}
        for key, kind in (("splits", SplitFacts), ("example", ArraySpec)):
          if isinstance(nested.get(key), Mapping):
            nested[key] = {
              name: construct(kind, value, group=f"{key}.{name}")
              for name, value in nested[key].items()
            }
        if isinstance(nested["bag"], Mapping):
          nested["bag"] = construct(BagFacts, nested["bag"], group="bag")
      facts = construct(cls, nested, group="")
      _check(facts)
    except ValueError as error:
      raise ValueError(f"{where} is damaged: {error}") from error
    return facts


def specs_of(
  batch: Mapping[str, Any], *, rows: int | None = 1
) -> dict[str, ArraySpec]:
  """Returns shapes and dtypes of a batch.

  Args:
    batch: arrays, whose first axis counts examples.
    rows: length of that axis instead; ``None`` leaves it.
  """
  return {
    name: ArraySpec(
      shape=array.shape if rows is None else (rows, *array.shape[1:]),
      dtype=np.dtype(array.dtype).name,
    )
    for name, array in batch.items()
  }


def sizes_of(splits: Mapping[str, Sized]) -> dict[str, SplitFacts]:
  """Returns the number of examples of each split."""
  return {n: SplitFacts(examples=len(split)) for n, split in splits.items()}


def _check(facts: DataFacts) -> None:
  """Raises a ValueError for a value out of range, naming key and value."""
  if "train" not in facts.splits:
    raise ValueError("splits has no 'train'")
  bounds: list[tuple[str, int | None, int]] = [
    ("num_classes", facts.num_classes, 1),
    ("vocab_size", facts.vocab_size, 1),
    ("start_id", facts.start_id, 0),
    ("batches_per_epoch", facts.batches_per_epoch, 1),
  ]
  for name, split in facts.splits.items():
    choices.check(name, split_names.NAMES, key="splits")
    bounds.append((f"splits.{name}.examples", split.examples, 1))
  for name, spec in facts.example.items():
    choices.check(spec.dtype, _DTYPES, key=f"example.{name}.dtype")
    bounds += [(f"example.{name}.shape", size, 0) for size in spec.shape]
    if math.prod(spec.shape) > _MOST_ELEMENTS:
      raise ValueError(
        f"example.{name}.shape is {spec.shape}, more than {_MOST_ELEMENTS}"
        " elements"
      )
  for key, value, least in bounds:
    if value is not None and not least <= value <= _MOST:
      raise ValueError(f"{key} is {value}; it must be in {least}..{_MOST}")
  _check_statistics(facts)
  names = facts.class_names
  if names and (len(names) != facts.num_classes or len({*names}) < len(names)):
    raise ValueError(
      f"class_names is {names[:4]}..., {len(names)} names; it must hold a"
      f" different one for each of the {facts.num_classes} classes"
    )
  if facts.bag is not None:
    _check_bag(facts.bag, facts.vocab_size)


def _check_statistics(facts: DataFacts) -> None:
  """Raises a ValueError for a mean or deviation that cannot be."""
  for key in ("mean", "std"):
    values = getattr(facts, key)
    if len(values) != len(facts.mean) or not np.isfinite(values).all():
      raise ValueError(
        f"{key} is {values[:4]}...; it must hold {len(facts.mean)} finite"
        " numbers"
      )
  if not all(value > 0 for value in facts.std):
    raise ValueError(f"std is {facts.std[:4]}...; it must be positive")


def _check_bag(bag: BagFacts, vocab_size: int | None) -> None:
  """Raises a ValueError for a bag that cannot be, naming key and value."""
  ids, idf = np.array(bag.ids, object), np.array(bag.idf, np.float64)
  if len(ids) != vocab_size:
    raise ValueError(f"bag.ids has {len(ids)} ids; vocab_size is {vocab_size}")
  if (ids < 0).any() or (ids > _MOST).any() or (ids[1:] <= ids[:-1]).any():
    raise ValueError(f"bag.ids must rise, in 0..{_MOST}: {bag.ids[:4]}...")
  if len(idf) not in (0, len(ids)) or not np.isfinite(idf).all():
    raise ValueError(
      f"bag.idf has {len(idf)} numbers; it must have none, or {len(ids)} finite"
      " ones"
    )
