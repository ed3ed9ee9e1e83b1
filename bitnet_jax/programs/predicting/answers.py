"""What a model answers for an input, as columns of text and as JSON values."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

_DIGITS = 6  # of a probability in JSON


class Answer(Protocol):
  """The answer of a model for one input."""

  def columns(self, top_k: int | None) -> list[str]:
    """Returns the answer as columns of text.

    Args:
      top_k: number of classes, or of tokens for a mask; ``None`` for the usual
        one.
    """
    ...

  def to_json(self, top_k: int | None) -> dict[str, Any]:
    """Returns the answer as JSON values; see ``columns``."""
    ...


@dataclasses.dataclass(frozen=True)
class Classes:
  """Probabilities of classes.

  Attributes:
    names: names of the classes.
    probabilities: float64 [classes].
    best: number of the predicted class, that of the largest logit.
  """

  names: Sequence[str]
  probabilities: np.ndarray
  best: int

  @classmethod
  def of_logits(cls, names: Sequence[str], logits: np.ndarray) -> "Classes":
    """Returns the softmax of logits [classes].

    Raises:
      FloatingPointError: if one is NaN or infinite.
    """
    return cls(names, softmax(logits), int(np.argmax(logits)))

  def columns(self, top_k: int | None) -> list[str]:
    """See ``Answer``."""
    names = [" ".join(name.split()) for name in self.names]
    width = max(map(len, names))
    return [
      f"{names[i]:{width}} {100 * self.probabilities[i]:5.1f} %"
      for i in largest(self.probabilities, top_k or 1)
    ]

  def to_json(self, top_k: int | None) -> dict[str, Any]:
    """See ``Answer``; without ``top_k`` it holds all classes in their order."""
    order = range(len(self.names))
    if top_k is not None:
      order = largest(self.probabilities, top_k)
    return {
      "class": self.names[self.best],
      "probability": rounded(self.probabilities[self.best]),
      "probabilities": {
        self.names[i]: rounded(self.probabilities[i]) for i in order
      },
    }


@dataclasses.dataclass(frozen=True)
class Values:
  """Numbers by name, such as the value of a regression.

  Attributes:
    values: the numbers.
  """

  values: Mapping[str, float | int]

  def columns(self, top_k: int | None) -> list[str]:
    """See ``Answer``."""
    del top_k
    if len(self.values) == 1:
      return [f"{value:.4g}" for value in self.values.values()]
    return [f"{name} {value:.4g}" for name, value in self.values.items()]

  def to_json(self, top_k: int | None) -> dict[str, Any]:
    """See ``Answer``."""
    del top_k
    return {
      name: rounded(value) if isinstance(value, float) else value
      for name, value in self.values.items()
    }


@dataclasses.dataclass(frozen=True)
class Written:
  """A text that the model wrote.

  Attributes:
    text: the text.
  """

  text: str

  def columns(self, top_k: int | None) -> list[str]:
    """See ``Answer``."""
    del top_k
    return [" ".join(self.text.split())]

  def to_json(self, top_k: int | None) -> dict[str, Any]:
    """See ``Answer``."""
    del top_k
    return {"text": self.text}


def softmax(logits: np.ndarray) -> np.ndarray:
  """Returns the probabilities of logits [n], in float64.

  Raises:
    FloatingPointError: if one is NaN or infinite.
  """
  logits = np.asarray(logits, np.float64)
  if not np.isfinite(logits).all():
    raise FloatingPointError("the model computes NaN or infinity for it")
  exp = np.exp(logits - logits.max())
  return exp / exp.sum()


def largest(values: np.ndarray, count: int) -> list[int]:
  """Returns the indices of the largest values, ties by index."""
  return np.argsort(-values, kind="stable")[:count].tolist()


def rounded(value: float) -> float:
  """Returns a number with the digits that JSON shows."""
  return float(f"{value:.{_DIGITS}g}")
