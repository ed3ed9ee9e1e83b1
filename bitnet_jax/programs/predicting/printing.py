"""Prints predictions: columns to read, or JSON lines."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from bitnet_jax.programs.predicting.predictor import Predicted

# Width of the first column: it grows with its texts, which are cut beyond.
_LEAST, _MOST = 12, 48

# Returns the line of a prediction that has an answer; see ``show`` for top_k.
Form = Callable[[Predicted, int | None], str]


def show_all(
  predictions: Iterable[Predicted], form: Form, top_k: int | None = None
) -> bool:
  """Prints predictions as they come; see ``show``.

  Returns:
    Whether all inputs were predicted.

  Raises:
    ValueError: if there is no input.
  """
  failed = total = 0
  try:
    for predicted in predictions:
      total += 1
      failed += predicted.error is not None
      show(predicted, form, top_k)
  except BrokenPipeError:
    # The reader has gone, as in "predict ... | head". Python flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
  if not total:
    raise ValueError("there is no input")
  if failed and total > 1:
    text = f"error: {failed} of {total} inputs have no prediction"
    print(text, file=sys.stderr)
  return not failed


def show(predicted: Predicted, form: Form, top_k: int | None = None) -> None:
  """Prints a prediction, and on standard error what is to be said of it.

  Args:
    predicted: the prediction, or the error of an input.
    form: makes its line: ``as_json``, or ``Columns``.
    top_k: number of classes to show; ``None`` for the usual one.
  """
  name, error = predicted.item.name, predicted.error
  if error is not None:
    text = " ".join(f"{error}".split()) or type(error).__name__
    where = "" if name in text else f"{name}: "
    _print(f"error: {where}{text}", sys.stderr)
  elif predicted.note:
    _print(f"{name}: {predicted.note}", sys.stderr)
  line = form(predicted, top_k)
  if line:
    _print(line, sys.stdout)


def _print(line: str, file: TextIO) -> None:
  """Prints a line, also one with the name of a file that is not UTF-8."""
  line = line.encode(errors="backslashreplace").decode()
  print(line, file=file, flush=True)


def as_json(predicted: Predicted, top_k: int | None) -> str:
  """Returns a prediction as a line of JSON, or an error in its place."""
  content: dict[str, Any] = {"input": predicted.item.shown}
  if predicted.answer is None:
    content["error"] = " ".join(f"{predicted.error}".split())
  else:
    content |= predicted.answer.to_json(top_k)
    if predicted.note:
      content["note"] = predicted.note
  return json.dumps(content, ensure_ascii=False)


class Columns:
  """Formats predictions as columns, the input first.

  The first column is as wide as its longest entry so far.
  """

  def __init__(self):
    self._width = _LEAST

  def __call__(self, predicted: Predicted, top_k: int | None) -> str:
    """Returns the line of a prediction; "" after an error."""
    if predicted.answer is None:
      return ""
    name = _shortened(predicted.item.shown)
    self._width = max(self._width, len(name))
    columns = predicted.answer.columns(top_k)
    return "  ".join([name.ljust(self._width), *columns]).rstrip()


def _shortened(shown: Any) -> str:
  """Returns an input in one line of at most ``_MOST`` characters."""
  texts = shown if isinstance(shown, list) else [shown]
  text = " | ".join(" ".join(f"{text}".split()) for text in texts)
  if len(text) <= _MOST:
    return text
  if isinstance(shown, str) and "/" in text and " " not in text:
    return f"...{text[3 - _MOST :]}"  # The end of a path tells more.
  return f"{text[: _MOST - 3]}..."
