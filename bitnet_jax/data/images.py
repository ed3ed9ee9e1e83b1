"""Image arrays: the packed form of files, augmentation, channel statistics."""

import numpy as np

_CHUNK_VALUES = 2**20  # 8 MB of float64 at a time


def decode_residuals(residuals: np.ndarray) -> np.ndarray:
  """Rebuilds the images of the packed form without loss.

  A packed image holds differences of neighbours modulo 256, which compress
  better: each pixel is stored less its left neighbour, those of the first
  column less the pixel above, after red and blue had green taken off.

  Args:
    residuals: uint8 [3, n, height, width], planes red, green, blue.

  Returns:
    uint8 [n, height, width, 3], RGB.
  """
  planes = residuals.copy()
  column = planes[..., 0]
  np.cumsum(column, axis=-1, dtype=np.uint8, out=column)
  np.cumsum(planes, axis=-1, dtype=np.uint8, out=planes)
  red, green, blue = planes
  return np.stack([red + green, green, blue + green], axis=-1)


def draw_offsets(
  count: int, rng: np.random.Generator, *, padding: int
) -> np.ndarray:
  """Draws where to crop: int64 [count, 2], row and column, 0 to 2 padding."""
  return rng.integers(2 * padding, size=(count, 2), endpoint=True)


def crop(
  images: np.ndarray, offsets: np.ndarray, *, padding: int
) -> np.ndarray:
  """Cuts one window of the original size out of each zero-padded image.

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
  """Moves each image by up to `padding` pixels; what comes in is zero.

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


def channel_statistics(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Computes mean and standard deviation over all axes but the last.

  Sums run in float64 over chunks, so no float copy of the data is made. A
  channel or feature that never changes gets the deviation 1, so that dividing
  by it is safe.

  Args:
    inputs: [n, ..., channels] or [n, features], numbers of any dtype, n >= 1.

  Returns:
    mean and std, float32 [channels] each; std is that of the population.

  Raises:
    ValueError: there is no value to take the statistics of.
  """
  if not inputs.size:
    raise ValueError(f"no statistics of an empty array, {inputs.shape}")
  channels = inputs.shape[-1]
  values = inputs.reshape(len(inputs), -1)
  # Sums are taken about one value of each channel: a constant channel then has
  # a variance of exactly 0, and a large mean costs no digits.
  first = values[0, :channels].astype(np.float64)
  shift = np.tile(first, values.shape[1] // channels)
  total, squares = np.zeros_like(shift), np.zeros_like(shift)
  rows = max(_CHUNK_VALUES // values.shape[1], 1)
  for start in range(0, len(values), rows):
    chunk = values[start : start + rows] - shift
    total += chunk.sum(axis=0)
    squares += np.einsum("nv,nv->v", chunk, chunk)
  count = inputs.size // channels
  offset = total.reshape(-1, channels).sum(axis=0) / count
  square = squares.reshape(-1, channels).sum(axis=0) / count
  std = np.sqrt(np.maximum(square - offset**2, 0)).astype(np.float32)
  std[std == 0] = 1
  return (first + offset).astype(np.float32), std
