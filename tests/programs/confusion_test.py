"""Figures of classes as a table, and confusion matrices as pictures."""

import numpy as np
import pytest

from bitnet_jax.programs import confusion

FIGURES = {
  "cat": {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 4},
  "a very long name of a dog": {
    "precision": 0.25,
    "recall": 1.0,
    "f1": 0.4,
    "support": 12345,
  },
}


def test_table_has_a_line_for_each_class():
  assert confusion.describe(FIGURES, "test").splitlines() == [
    "test                      precision     recall         F1    support",
    "cat                           1.000      0.500      0.667          4",
    "a very long name of a...      0.250      1.000      0.400      12345",
  ]


def test_table_of_many_classes_shows_the_worst():
  figures = {
    f"class {i}": {**FIGURES["cat"], "f1": (7 * i % 50) / 50} for i in range(50)
  }
  lines = confusion.describe(figures, "valid").splitlines()
  assert lines[0].endswith("the 20 of 50 classes with the lowest F1")
  assert len(lines) == 21
  assert lines[1].startswith("class 0 ")
  assert lines[2].startswith("class 43 ")


def test_classes_without_mistakes_are_drawn_as_one():
  count = 60
  matrix = np.eye(count) * 10
  matrix[50, 3] = 5
  names = [f"class {i}" for i in range(count)]
  found, shown = confusion.largest_mistakes(matrix, names)
  assert len(shown) == confusion.MOST_DRAWN
  assert shown[-1] == "all others"
  assert found.sum() == matrix.sum()
  row, column = shown.index("class 50"), shown.index("class 3")
  assert found[row, column] == 5
  assert found[-1, -1] == 10 * (count - len(shown) + 1)
  same, unchanged = confusion.largest_mistakes(matrix[:3, :3], names[:3])
  np.testing.assert_array_equal(same, matrix[:3, :3])
  assert unchanged == names[:3]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 30, 60])
def test_picture_does_not_depend_on_settings_of_the_user(tmp_path, count):
  import matplotlib as mpl
  from PIL import Image

  matrix = np.eye(count) * 10
  matrix[1, 0] = 5
  names = [f"$class_{i}{{ 漢字" for i in range(count)]
  confusion.draw(tmp_path / "a.png", matrix, names, "été $")
  with mpl.rc_context({"figure.facecolor": "black", "font.size": 30}):
    confusion.draw(tmp_path / "b.png", matrix, names, "été $")
  first, second = (
    np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB")) for n in "ab"
  )
  np.testing.assert_array_equal(first, second)
  assert first[0, 0].tolist() == [255, 255, 255]
  assert (first < 100).any()
