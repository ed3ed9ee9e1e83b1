"""What a model answers for an input, as columns of text and as JSON values."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

_DIGITS = 6  # of a probability in JSON
_NOT_FINITE = "the model computes NaN or infinity for it"


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
class Boxes:
  """Objects on a picture, the most probable first.

  Attributes:
    names: the class of each object.
    probabilities: of an object of that class.
    boxes: left, upper, right and lower edge of each, in pixels.
  """

  names: Sequence[str]
  probabilities: Sequence[float]
  boxes: Sequence[Sequence[float]]

  @classmethod
  def of_detections(
    cls,
    names: Sequence[str],
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    kept: np.ndarray,
  ) -> "Boxes":
    """Returns the detections of an image that suppression keeps.

    Args:
      names: names of the classes.
      boxes: float32 [k, 4].
      labels: int32 [k].
      scores: log-odds, float32 [k], descending.
      kept: bool [k].

    Raises:
      FloatingPointError: if a score or box is NaN or infinite.
    """
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
      raise FloatingPointError(_NOT_FINITE)
    p = 1 / (1 + np.exp(-scores[kept].astype(np.float64)))
    found = [names[label] for label in labels[kept]]
    return cls(found, p.tolist(), boxes[kept].tolist())

  def _shown(self, top_k):
    """Returns the objects to show: those that are more probable than not."""
    if top_k is None:
      top_k = sum(p >= 0.5 for p in self.probabilities)
    found = zip(self.names, self.probabilities, self.boxes, strict=True)
    return list(found)[:top_k]

  def columns(self, top_k: int | None) -> list[str]:
    """See ``Answer``."""
    return [
      f"{name} {100 * p:.1f} % at {', '.join(f'{edge:.1f}' for edge in box)}"
      for name, p, box in self._shown(top_k)
    ]

  def to_json(self, top_k: int | None) -> dict[str, Any]:
    """See ``Answer``."""
    return {
      "objects": [
        {"class": name, "probability": rounded(p), "box": [*map(rounded, box)]}
        for name, p, box in self._shown(top_k)
      ]
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
    raise FloatingPointError(_NOT_FINITE)
  exp = np.exp(logits - logits.max())
  return exp / exp.sum()


def largest(values: np.ndarray, count: int) -> list[int]:
  """Returns the indices of the largest values, ties by index."""
  return np.argsort(-values, kind="stable")[:count].tolist()


def rounded(value: float) -> float:
  """Returns a number with the digits that JSON shows."""
  return float(f"{value:.{_DIGITS}g}")
