"""Batches of images, optionally augmented, or of feature vectors."""

import dataclasses

import numpy as np

from bitnet_jax.data.batches.order import Batch, Draws
from bitnet_jax.data.splits import Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrays:
  """The examples of a split, in batches of "inputs" and "labels".

  Attributes:
    split: inputs [n, *shape], labels [n].
    random_crop: most pixels by which images are shifted, 0 for none.
    random_flip: whether images are mirrored with probability 1/2.

  Raises:
    ValueError: inputs to augment are not images.
  """

  split: Split
  random_crop: int = 0
  random_flip: bool = False

  def __post_init__(self):
    for name in ("random_crop", "random_flip"):
      value = getattr(self, name)
      if value < 0:
        raise ValueError(f"{name} must not be negative, it is {value}")
      if value and self.split.inputs.ndim != 4:
        raise ValueError(
          f"{name}={value} needs images [n, height, width, channels], the"
          f" inputs have the shape {list(self.split.inputs.shape)}"
        )

  def __len__(self) -> int:
    return len(self.split)

  @property
  def is_fixed(self) -> bool:
    """Whether the inputs are in memory, and never augmented."""
    augments = bool(self.random_crop) or self.random_flip
    return isinstance(self.split.inputs, np.ndarray) and not augments

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns "inputs" in the dtype of the split, and "labels" int32."""
    inputs = self.split.inputs[indices]  # one gather a batch
    if self.random_crop or self.random_flip:
      inputs = self._augment(inputs, draws)
    return {"inputs": inputs, "labels": self.split.labels[indices]}

  def _augment(self, inputs, draws):
    """Draws for the global batch, and applies the rows of this process."""
    rng = draws.generator()
    if self.random_crop:
      offsets = draw_offsets(draws.batch_size, rng, padding=self.random_crop)
      inputs = crop(inputs, offsets[draws.rows], padding=self.random_crop)
    if self.random_flip:
      flips = draw_flips(draws.batch_size, rng)
      inputs = flip(inputs, flips[draws.rows])
    return inputs


def draw_offsets(
  count: int, rng: np.random.Generator, *, padding: int
) -> np.ndarray:
  """Draws where to crop: int64 [count, 2], row and column, 0 to 2 padding."""
  return rng.integers(2 * padding, size=(count, 2), endpoint=True)


def crop(
  images: np.ndarray, offsets: np.ndarray, *, padding: int
) -> np.ndarray:
  """Crops a window of the original size from each zero-padded image.

  Args:
    images: [n, height, width, channels].
    offsets: integers [n, 2], the upper left corner (row, column) of each window
      in the padded image, 0 to 2 padding; (padding, padding) changes nothing.
    padding: rows and columns of zeros put on every side.

  Returns:
    A new array of the shape and dtype of `images`.
  """
  margin = (padding, padding)
  padded = np.pad(images, ((0, 0), margin, margin, (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(
    padded, images.shape[1:3], axis=(1, 2)
  )  # [n, row, column, channels, height, width], a view
  windows = np.moveaxis(windows, 3, -1)
  return windows[np.arange(len(images)), offsets[:, 0], offsets[:, 1]]


def random_crop(
  images: np.ndarray, rng: np.random.Generator, *, padding: int
) -> np.ndarray:
  """Shifts each image by up to `padding` pixels; the new pixels are zero.

  Args:
    images: [n, height, width, channels].
    rng: draws one offset an image; equal generators give equal crops.
    padding: largest shift in each direction.

  Returns:
    A new array of the shape and dtype of `images`.
  """
  offsets = draw_offsets(len(images), rng, padding=padding)
  return crop(images, offsets, padding=padding)


def draw_flips(count: int, rng: np.random.Generator) -> np.ndarray:
  """Draws which images to mirror: bool [count], each with probability 1/2."""
  return rng.random(count) < 0.5


def flip(images: np.ndarray, flips: np.ndarray) -> np.ndarray:
  """Mirrors left and right the images [n, h, w, c] where flips [n] is true."""
  flipped = images.copy()
  flipped[flips] = images[flips, :, ::-1]
  return flipped


def random_flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Mirrors each image left and right with probability 1/2.

  Args:
    images: [n, height, width, channels].
    rng: draws one number an image; equal generators give equal flips.

  Returns:
    A new array of the shape and dtype of `images`.
  """
  return flip(images, draw_flips(len(images), rng))
