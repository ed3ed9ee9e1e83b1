"""Canvases: their objects, and how they are drawn."""

import numpy as np
import pytest

from bitnet_jax.data import splits
from bitnet_jax.data.views import canvases

OPTIONS = dict(side=24, object_sizes=(5, 9), objects=(1, 3))


def write(path, count=40, **pixels):
  """Writes bars of height 6 and width 1 to 4, whose class is their width."""
  labels = np.arange(count) % 4
  x = np.zeros((count, 8, 8), np.uint8)
  for image, label in zip(x, labels, strict=True):
    image[1:7, 2 : 3 + label] = 100 + label
  for i in pixels.get("blank", ()):
    x[i] = 0
  held = {"x_test": x[-4:], "y_test": labels[-4:]}
  np.savez(path, x_train=x, y_train=labels, **held)
  return f"file:{path}"


def load(source, seed=0, **options):
  cuts = splits.Cuts(valid_fraction=0.25, split_seed=seed)
  return canvases.load(source, cuts, **OPTIONS | options)


def test_boxes_are_around_the_objects_and_hold_nothing_else(tmp_path):
  found = load(write(tmp_path / "x.npz"))
  assert {name: len(s) for name, s in found.splits.items()} == {
    "train": 30,
    "valid": 10,
    "test": 4,
  }
  counts = set()
  for split in found.splits.values():
    for image, boxes, labels in zip(
      split.inputs[..., 0], split.boxes, split.labels, strict=True
    ):
      left = image.copy()
      for box, label in zip(boxes, labels, strict=True):
        if label == canvases.ABSENT:
          assert not box.any()
          continue
        x0, y0, x1, y1 = box.astype(int)
        assert 5 <= y1 - y0 <= 9
        assert x1 - x0 == max(round((y1 - y0) * (label + 1) / 6), 1)
        assert (image[y0:y1, x0:x1] == 100 + label).all()
        left[y0:y1, x0:x1] = 0
      assert not left.any()
      counts.add((labels >= 0).sum())
  assert counts == {1, 2, 3}


def test_canvases_are_a_function_of_the_seed(tmp_path):
  source = write(tmp_path / "x.npz")
  first, again, other = (load(source, seed) for seed in (0, 0, 1))
  assert first.fingerprint == again.fingerprint
  for split in ("train", "valid"):
    drawn = [d.splits[split].inputs for d in (first, again, other)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_objects_without_room_are_left_out(tmp_path):
  found = load(write(tmp_path / "x.npz"), side=9, objects=(3, 3))
  labels = found.splits["train"].labels
  assert (labels[:, 0] >= 0).all()
  assert (labels[:, 2] < 0).any()


@pytest.mark.parametrize(
  ("source", "message"),
  [
    ("embedded:xor", r"of shape \[4\] \(float32\); canvases are drawn from"),
    (None, "train, 3 is blank, so it has no box"),
  ],
)
def test_examples_that_cannot_be_drawn_are_named(source, message, tmp_path):
  source = source or write(tmp_path / "x.npz", blank=(3,))
  with pytest.raises(ValueError, match=message):
    canvases.load(source, **OPTIONS)
