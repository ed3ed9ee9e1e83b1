"""Canvases for detection: several small images each, with their boxes."""

import dataclasses

import numpy as np

from bitnet_jax.data import splits
from bitnet_jax.data.batches.order import Batch, Draws
from bitnet_jax.data.splits import Dataset
from bitnet_jax.data.views import arrays

# Changes if canvases are drawn in another way.
_VERSION = 1
_TRIES = 20  # to place an object where it overlaps no other
ABSENT = -1  # label of padding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvases(splits.Columns):
  """Images with boxes around their objects.

  Attributes:
    inputs: uint8 [n, side, side, channels].
    boxes: float32 [n, most objects, 4], the left, upper, right and lower edge
      in pixels; zeros are padding.
    labels: int32 [n, most objects], the classes; -1 is padding.
  """

  inputs: np.ndarray
  boxes: np.ndarray
  labels: np.ndarray

  @property
  def is_fixed(self) -> bool:
    """Whether no example depends on draws, see ``order.fixed_examples``."""
    return True

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns "inputs", "boxes", "labels" and "mask", float32 [rows]: ones."""
    del draws
    found = {
      field.name: getattr(self, field.name)[indices]
      for field in dataclasses.fields(self)
    }
    return found | {"mask": np.ones(len(indices), np.float32)}


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  side: int,
  object_sizes: tuple[int, int],
  objects: tuple[int, int],
) -> Dataset[Canvases]:
  """Draws a canvas for each example of a source of images, see `arrays.load`.

  An object is an image, cut to its pixels that are not zero, and scaled to a
  random size. The first object of a canvas is its example. The others are drawn
  from the same split, and are left out where there is no room. The squares in
  which objects lie do not overlap. Everything depends on the data and on
  `cuts.split_seed` only.

  Args:
    source: uint8 images, such as `embedded:digits`.
    cuts: for splits that the source lacks.
    side: height and width of a canvas, in pixels.
    object_sizes: least and largest size of an object's longer side, likewise.
    objects: least and largest number of objects of a canvas.

  Raises:
    ValueError: the images are not uint8, or one is blank; names it.
  """
  found = arrays.load(source, cuts)
  drawn = {}
  for split, examples in found.splits.items():
    inputs = examples.inputs
    is_loaded = isinstance(inputs, np.ndarray)
    if not is_loaded or inputs.ndim != 4 or inputs.dtype != np.uint8:
      raise ValueError(
        f"{source} has examples of shape {list(inputs.shape[1:])}"
        f" ({inputs.dtype}); canvases are drawn from uint8 images in memory"
      )
    seed = (cuts.split_seed, splits.NAMES.index(split), _VERSION)
    drawn[split] = _draw(
      [_cut_to_ink(x, f"{source}: {split}, {i}") for i, x in enumerate(inputs)],
      examples.labels,
      np.random.default_rng(seed),
      side=side,
      object_sizes=object_sizes,
      objects=objects,
    )
  return Dataset(
    splits=drawn,
    fingerprint=f"{found.fingerprint} canvases {_VERSION}",
    num_classes=found.num_classes,
    class_names=found.class_names,
  )


def _cut_to_ink(image, where):
  """Returns the smallest part of an image with all pixels that are not zero."""
  ink = image.any(axis=-1)
  if not ink.any():
    raise ValueError(f"{where} is blank, so it has no box")
  spans = [np.flatnonzero(ink.any(axis=1 - axis)) for axis in (0, 1)]
  (top, bottom), (left, right) = ((s[0], s[-1] + 1) for s in spans)
  return image[top:bottom, left:right]


def _draw(images, labels, rng, *, side, object_sizes, objects) -> Canvases:
  n, most = len(images), objects[1]
  canvases = Canvases(
    inputs=np.zeros((n, side, side, images[0].shape[-1]), np.uint8),
    boxes=np.zeros((n, most, 4), np.float32),
    labels=np.full((n, most), ABSENT, np.int32),
  )
  for i in range(n):
    count = rng.integers(*objects, endpoint=True)
    chosen = [i, *rng.integers(n, size=count - 1)]
    squares = _place(count, rng, side, object_sizes)
    for slot, (example, square) in enumerate(
      zip(chosen, squares, strict=False)
    ):
      box = _paste(canvases.inputs[i], images[example], *square)
      canvases.boxes[i, slot] = box
      canvases.labels[i, slot] = labels[example]
  return canvases


def _place(count, rng, side, object_sizes):
  """Returns (row, column, size) of at most `count` squares without overlap."""
  squares = []
  for _ in range(count):
    size = rng.integers(*object_sizes, endpoint=True)
    for row, column in rng.integers(side - size + 1, size=(_TRIES, 2)):
      if all(
        row + size <= r or r + s <= row or column + size <= c or c + s <= column
        for r, c, s in squares
      ):
        squares.append((row, column, size))
        break
  return squares


def _paste(canvas, image, row, column, size):
  """Scales an image into the middle of a square, and returns its box."""
  height, width = image.shape[:2]
  longer = max(height, width)
  new = [max(round(size * length / longer), 1) for length in (height, width)]
  y, x = row + (size - new[0]) // 2, column + (size - new[1]) // 2
  # The nearest pixel of the image for each pixel of the canvas.
  rows, columns = (
    np.arange(n) * length // n
    for n, length in zip(new, (height, width), strict=True)
  )
  canvas[y : y + new[0], x : x + new[1]] = image[rows[:, None], columns]
  return x, y, x + new[1], y + new[0]
