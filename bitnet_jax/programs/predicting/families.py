"""How inputs become batches of a task, and outputs become answers."""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from bitnet_jax.data import standardization
from bitnet_jax.data.batches import bag_of_words, order, rows
from bitnet_jax.data.sources import pictures
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer
from bitnet_jax.programs.predicting.answers import (
  Answer,
  Boxes,
  Classes,
  Values,
)
from bitnet_jax.train.devices.mesh import batch_shards
from bitnet_jax.train.model import TrainedModel
from bitnet_jax.train.tasks import boxes, detection, documents
from bitnet_jax.train.tasks.text_classification import TextRegression

# From a batch to the outputs of the model, [rows, ...].
Compute = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Family(abc.ABC):
  """The inputs and answers of a model of one task.

  Attributes:
    found: the model.
  """

  found: TrainedModel

  @property
  def reads(self) -> str:
    """What an input is: "pictures", "features" or "texts"."""
    return "texts"

  @property
  def columns(self) -> tuple[str, ...]:
    """Columns of a table that make an input, if they are known."""
    return ()

  @property
  def label(self) -> str | None:
    """Column of a table with the classes, which is not read."""
    return None

  def read_picture(self, path: pathlib.Path) -> np.ndarray:
    """Returns a picture as an array for ``encode``.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is no picture, or the model takes none.
    """
    raise ValueError(f"the model reads {self.reads}; {path} is a picture")

  @abc.abstractmethod
  def encode(self, value: Any) -> tuple[Any, str]:
    """Returns an example for ``answer``, and what to tell the user, or "".

    Args:
      value: of an input, see ``inputs.Item``.

    Raises:
      ValueError: if it is no input for this model, saying why.
    """

  @abc.abstractmethod
  def answer(
    self, examples: Sequence[Any], size: int, compute: Compute
  ) -> list[Answer]:
    """Returns the answers for examples.

    Args:
      examples: at least one, at most ``size``.
      size: rows of a batch.
      compute: the model.
    """

  def classes(self, logits: np.ndarray, count: int) -> list[Answer]:
    """Returns the answers for the first rows of logits [rows, classes]."""
    names = self.found.task.facts.names_of_classes()
    return [Classes.of_logits(names, row) for row in logits[:count]]


class Arrays(Family):
  """Classification of pictures, or of rows of features."""

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of an input."""
    return self.found.task.facts.example["inputs"].shape[1:]

  @property
  def dtype(self) -> str:
    """The dtype of an input."""
    return self.found.task.facts.example["inputs"].dtype

  @property
  def reads(self) -> str:
    """See ``Family``."""
    return "pictures" if len(self.shape) == 3 else "features"

  @property
  def columns(self) -> tuple[str, ...]:
    """See ``Family``."""
    return self.found.task.facts.features

  @property
  def label(self) -> str | None:
    """See ``Family``."""
    return self.found.settings.data.label

  @property
  def fit(self) -> str:
    """How a picture becomes square, see ``pictures.read``."""
    return self.found.settings.data.image_fit

  def read_picture(self, path: pathlib.Path) -> np.ndarray:
    """See ``Family``."""
    if self.reads != "pictures":
      return super().read_picture(path)
    height, width, channels = self.shape
    if self.dtype != "uint8" or channels not in (1, 3):
      raise ValueError(
        f"the model reads arrays, {self.dtype} {list(self.shape)}, in .npz"
        f" files; {path} is a picture"
      )
    return pictures.read(path, (height, width, channels), fit=self.fit)

  def encode(self, value: np.ndarray) -> tuple[np.ndarray, str]:
    """See ``Family``."""
    if value.ndim == 2 and self.reads == "pictures":
      value = value[..., None]
    if value.shape != self.shape:
      raise ValueError(
        f"its shape is {list(value.shape)}; the model takes {list(self.shape)}"
      )
    if self.dtype == "uint8" and value.dtype != np.uint8:
      raise ValueError(f"it is {value.dtype}; the model takes uint8")
    value = value.astype(self.dtype)
    facts = self.found.task.facts
    mean, std = (np.array(v, np.float32) for v in (facts.mean, facts.std))
    standardization.check_standardized(value[None], mean, std, where="array")
    return value, ""

  def answer(
    self, examples: Sequence[np.ndarray], size: int, compute: Compute
  ) -> list[Answer]:
    """See ``Family``."""
    batch = {"inputs": np.stack(examples)[_padded(len(examples), size)]}
    return self.classes(compute(batch), len(examples))


class Canvases(Arrays):
  """Detection of the objects on pictures."""

  label = None
  fit = "pad"

  def answer(
    self, examples: Sequence[np.ndarray], size: int, compute: Compute
  ) -> list[Answer]:
    """See ``Family``."""
    batch = {"inputs": np.stack(examples)[_padded(len(examples), size)]}
    outputs = compute(batch)[: len(examples)]
    facts = self.found.task.facts
    cell = detection.cell_of(outputs, facts)
    detections = boxes.detect(jnp.asarray(outputs), cell)
    names = facts.names_of_classes()
    return [
      Boxes.of_detections(names, *image)
      for image in zip(*map(np.asarray, detections), strict=True)
    ]


class Texts(Family):
  """Classification or regression of texts, or of pairs of texts."""

  @property
  def columns(self) -> tuple[str, ...]:
    """See ``Family``."""
    given = self.found.settings.data.columns
    return self.found.task.facts.features or given or ("text",)

  def encode(self, value: Sequence[str]) -> tuple[list[np.ndarray], str]:
    """See ``Family``."""
    ids = [encoded(text, tokenizer_of(self.found)) for text in value]
    length, most = 1 + sum(len(i) + 1 for i in ids), self.seq_len
    return ids, cut_note(length, most)

  @property
  def seq_len(self) -> int:
    """Tokens of a row."""
    return self.found.settings.data.seq_len

  def answer(
    self, examples: Sequence[Any], size: int, compute: Compute
  ) -> list[Answer]:
    """See ``Family``."""
    tokenizer, count = tokenizer_of(self.found), len(examples)
    made = rows.ClassifiedRows(
      texts=tuple(map(Ragged.of, zip(*examples, strict=True))),
      labels=np.zeros(count, np.int32),
      seq_len=self.seq_len,
      cls_id=tokenizer.need("cls", purpose="a classified row"),
      sep_id=tokenizer.need("sep", purpose="a classified row"),
      pad_id=tokenizer.pad_id or 0,
    )
    outputs = compute(batch_of(made, count, size))
    if not isinstance(self.found.task, TextRegression):
      return self.classes(outputs, count)
    return [Values({"value": float(row[0])}) for row in outputs[:count]]


class Bags(Family):
  """Classification of documents as bags of subword tokens."""

  @property
  def columns(self) -> tuple[str, ...]:
    """See ``Family``."""
    given = self.found.settings.data.column
    return self.found.task.facts.features or (given or "text",)

  def encode(self, value: Sequence[str]) -> tuple[np.ndarray, str]:
    """See ``Family``."""
    (text,) = value
    tokenizer, data = tokenizer_of(self.found), self.found.settings.data
    ids = encoded(text, tokenizer)
    ids = ids[np.isin(ids, np.array(self._bag.ids, np.int32))]
    if not len(ids):
      raise ValueError("none of its tokens occurs in the data of the run")
    if data.special_tokens:
      ids = documents.with_special_tokens([ids], tokenizer)[0]
    return ids, ""

  @property
  def _bag(self):
    bag = self.found.task.facts.bag
    if bag is None:
      raise ValueError(
        "an older version trained the run, and did not record its subword"
        " tokens; start the command that trained it once more to record them"
      )
    return bag

  def answer(
    self, examples: Sequence[np.ndarray], size: int, compute: Compute
  ) -> list[Answer]:
    """See ``Family``."""
    bags = bag_of_words.count_words(
      Ragged.of(examples),
      np.zeros(len(examples), np.int32),
      np.array(self._bag.ids, np.int32),
      name="given",
      idf=np.array(self._bag.idf) if self._bag.idf else None,
    )
    shards = batch_shards(self.found.mesh)
    batch = bag_of_words.batch_of(bags, batch_size=size, multiple=shards)
    return self.classes(compute(batch), len(examples))


def tokenizer_of(found: TrainedModel) -> Tokenizer:
  """Returns the vocabulary of a run.

  Raises:
    ValueError: if the run has not recorded it.
  """
  if found.tokenizer is None:
    raise ValueError(
      "an older version trained the run, and did not record its vocabulary;"
      " start the command that trained it once more to record it"
    )
  return found.tokenizer


def encoded(text: str, tokenizer: Tokenizer) -> np.ndarray:
  """Returns the ids of a text, at least one."""
  if not text or text.isspace():
    raise ValueError("it is empty")
  ids = tokenizer.encode(text)
  if not len(ids):
    raise ValueError("it has no token")
  return ids


def cut_note(length: int, most: int) -> str:
  """Returns what to say of a text that is too long."""
  return f"cut to {most} of its {length} tokens" if length > most else ""


def _padded(count: int, size: int) -> np.ndarray:
  """Returns the indices of a batch, padded with the last example."""
  return np.minimum(np.arange(size), count - 1)


def batch_of(
  examples: Any, count: int, size: int, *, first: int = 0
) -> order.Batch:
  """Returns a batch of examples, padded with the last one.

  Args:
    examples: see ``order.Examples``; they draw nothing.
    count: number of examples.
    size: rows of the batch.
    first: number of the first one.
  """
  indices = first + _padded(count, size)
  draws = order.Draws(seed=(0,), stream=0, rows=indices, batch_size=size)
  return examples.batch(indices, draws)
