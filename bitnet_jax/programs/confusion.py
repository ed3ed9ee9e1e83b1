"""Figures of single classes: a table, and a picture of the confusion matrix."""

import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from bitnet_jax import extras
from bitnet_jax.data import splits
from bitnet_jax.train import console
from bitnet_jax.train.folder import bucket

MOST_DRAWN = 40  # Classes in a picture; the rest of more is summed up.
_MOST_NUMBERED = 20  # Classes with a number in each cell.
_MOST_LISTED = 20  # Classes in a table.
_LONGEST, _SHORT = 24, 3  # Characters of a class's name.


def show(
  folder: pathlib.Path,
  evaluation: Mapping[str, Any],
  confusions: Mapping[str, np.ndarray],
) -> None:
  """Draws the confusion matrices of an evaluation, and shows the last table.

  Args:
    folder: of the run or the frozen model, where the pictures are written.
    evaluation: the content of ``evaluation.json``.
    confusions: by split; without "train", which is not drawn, nothing is shown.
  """
  drawn = [split for split in splits.NAMES[1:] if split in confusions]
  for split in drawn:
    title = f"{folder.name}, step {evaluation['step']}: {split}"
    path = folder / f"confusion_{split}.png"
    try:
      draw(path, confusions[split], list(evaluation["classes"][split]), title)
    except (ImportError, OSError) as error:  # The figures are not lost.
      logging.warning("%s is not drawn: %s", path, error)
    else:
      console.say(f"{path}")
  if drawn:
    bucket.send(folder)
    console.say(describe(evaluation["classes"][drawn[-1]], drawn[-1]))


def describe(figures: Mapping[str, Mapping[str, float]], split: str) -> str:
  """Returns a table of the figures of the classes of a split.

  Of many classes it shows those with the lowest F1.

  Args:
    figures: see ``scores.by_class``.
    split: its name.
  """
  names, note = list(figures), ""
  if len(names) > _MOST_LISTED:
    names = sorted(names, key=lambda name: figures[name]["f1"])[:_MOST_LISTED]
    note = f", the {_MOST_LISTED} of {len(figures)} classes with the lowest F1"
  width = max(len(split), *(len(_short(name)) for name in names))
  columns = ("precision", "recall", "F1", "support")
  lines = [f"{split:{width}}  {'  '.join(f'{c:>9}' for c in columns)}{note}"]
  for name in names:
    values = [f"{figures[name][key]:9.3f}" for key in ("precision", "recall")]
    values += [f"{figures[name]['f1']:9.3f}", f"{figures[name]['support']:9d}"]
    lines.append(f"{_short(name):{width}}  {'  '.join(values)}")
  return "\n".join(lines)


def draw(
  path: pathlib.Path, confusion: np.ndarray, names: Sequence[str], title: str
) -> None:
  """Draws a confusion matrix into a PNG file.

  A row is the true class, and its colours are fractions of the row. Of more
  than ``MOST_DRAWN`` classes, those with the most mistakes have rows and
  columns of their own.

  Args:
    path: the file.
    confusion: [truth, prediction], see ``scores.matthews``.
    names: of the classes.
    title: what the matrix is of.

  Raises:
    ImportError: if matplotlib is not installed.
  """
  extras.need("a picture of a confusion matrix", "matplotlib", extra="train")
  import matplotlib as mpl
  from matplotlib.figure import Figure

  total = len(names)
  confusion, names = largest_mistakes(np.asarray(confusion), list(names))
  if len(names) < total:
    title += f"\n{len(names) - 1} of {total} classes, with the most mistakes"
  count = len(names)
  side = 2.4 + max(count, 4) * (0.5 if count <= _MOST_NUMBERED else 0.22)
  # Without the settings of the user, such as a dark style, and without warnings
  # of letters that the font lacks.
  with mpl.rc_context(mpl.rcParamsDefault), warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Glyph .* missing")
    figure = Figure((side + 0.8, side), layout="constrained", facecolor="white")
    axes = figure.subplots()
    rows = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    fractions = confusion / rows
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    shown = [_short(name) for name in names]
    is_short = max(map(len, shown)) <= _SHORT
    turned = {"rotation": 0 if is_short else 90}
    axes.set_xticks(range(count), shown, parse_math=False, **turned)
    axes.set_yticks(range(count), shown, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("fraction of the true class")
    if count <= _MOST_NUMBERED:
      _write_numbers(axes, confusion, fractions)
    figure.savefig(path, format="png", dpi=150)


def _write_numbers(axes: Any, confusion, fractions) -> None:
  """Writes the number of examples into each cell that has some."""
  for row, column in np.argwhere(confusion):
    axes.text(
      column,
      row,
      f"{confusion[row, column]:.0f}",
      ha="center",
      va="center",
      fontsize=8,
      color="white" if fractions[row, column] > 0.5 else "black",
    )


def largest_mistakes(
  confusion: np.ndarray, names: list[str]
) -> tuple[np.ndarray, list[str]]:
  """Returns a matrix of ``MOST_DRAWN`` classes at most, the last for others."""
  if len(names) <= MOST_DRAWN:
    return confusion, names
  wrong = confusion * (1 - np.eye(len(names)))
  mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
  kept = np.sort(np.argsort(-mistakes, kind="stable")[: MOST_DRAWN - 1])
  group = np.full(len(names), len(kept))
  group[kept] = np.arange(len(kept))
  member = np.eye(len(kept) + 1)[group]  # [class, group]
  return member.T @ confusion @ member, [
    *(names[i] for i in kept),
    "all others",
  ]


def _short(name: str) -> str:
  return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."
