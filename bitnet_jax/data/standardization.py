"""Mean and deviation of channels, and checks of standardized values."""

import numpy as np

from bitnet_jax.data.picture_array import PictureArray

_CHUNK_VALUES = 2**20  # 8 MB of float64 at a time
# Below this deviation, a norm's eps of 1e-5 exceeds the variance.
_LEAST_SPREAD = 1e-4


def channel_statistics(
  inputs: np.ndarray | PictureArray,
) -> tuple[np.ndarray, np.ndarray]:
  """Computes mean and standard deviation over all axes but the last.

  Sums run in float64 over chunks, so no float copy of the data is made. A
  channel or feature that is constant, or varies by less than a normal float32,
  gets the deviation 1, so that dividing by it is safe.

  Args:
    inputs: [n, ..., channels] or [n, features], numbers of any dtype, n >= 1;
      or pictures that were measured, which are not read again.

  Returns:
    mean and std, float32 [channels] each; std is that of the population.

  Raises:
    ValueError: there are no values, or the statistics are not finite in
      float32; names the channel.
  """
  if not inputs.size:
    raise ValueError(f"no statistics of an empty array, {inputs.shape}")
  channels = inputs.shape[-1]
  # Sums are relative to one value of each channel, so that a constant channel
  # has a variance of exactly 0, and a large mean costs no digits.
  first = inputs[:1].reshape(-1)[:channels].astype(np.float64)
  if isinstance(inputs, PictureArray):
    total, squares = inputs.sums_from(first)
  else:
    total, squares = _sums_from(first, inputs)
  count = inputs.size // channels
  offset, square = total / count, squares / count
  with np.errstate(over="ignore"):  # what overflows is found just below
    std = np.sqrt(np.maximum(square - offset**2, 0)).astype(np.float32)
    mean = (first + offset).astype(np.float32)
  bad = np.flatnonzero(~np.isfinite(mean) | ~np.isfinite(std))
  if bad.size:
    raise ValueError(
      f"channel {bad[0]} has the mean {mean[bad[0]]} and the deviation"
      f" {std[bad[0]]} in float32; its values must be finite, and smaller"
    )
  std[std < np.finfo(np.float32).tiny] = 1  # XLA takes subnormals for zero
  return mean, std


def _sums_from(first, inputs):
  """Returns sums of inputs less `first`, and of their squares, by channel."""
  channels = len(first)
  values = inputs.reshape(len(inputs), -1)
  shift = np.tile(first, values.shape[1] // channels)
  total, squares = np.zeros_like(shift), np.zeros_like(shift)
  rows = max(_CHUNK_VALUES // values.shape[1], 1)
  for start in range(0, len(values), rows):
    chunk = values[start : start + rows] - shift
    total += chunk.sum(axis=0)
    squares += np.einsum("nv,nv->v", chunk, chunk)
  total, squares = total.reshape(-1, channels), squares.reshape(-1, channels)
  return total.sum(axis=0), squares.sum(axis=0)


def check_standardized(
  inputs: np.ndarray | PictureArray,
  mean: np.ndarray,
  std: np.ndarray,
  *,
  where: str,
) -> None:
  """Checks that `(inputs - mean) / std` is finite in float32.

  Only the smallest and largest value of each channel are checked.

  Args:
    inputs: uint8 or float32 [n, ..., channels].
    mean: float32 [channels], or [1] for all.
    std: float32 [channels], or [1] for all.
    where: source and split, for the message.

  Raises:
    ValueError: naming an example and its value.
  """
  if isinstance(inputs, PictureArray) or inputs.dtype == np.uint8:
    return
  values = inputs.reshape(-1, inputs.shape[-1])
  mean, std = (np.broadcast_to(a, values.shape[-1:]) for a in (mean, std))
  for reduce in (np.min, np.max):
    # Along examples first, where values lie side by side in memory.
    extreme = reduce(inputs.reshape(len(inputs), -1), axis=0)
    extreme = reduce(extreme.reshape(-1, inputs.shape[-1]), axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
      finite = np.isfinite((extreme - mean) / std)
    if not finite.all():
      channel = int(np.argmin(finite))
      same = values[:, channel] == extreme[channel]
      row = np.argmax(same if same.any() else np.isnan(values[:, channel]))
      raise ValueError(
        f"{where}: example {row * len(inputs) // len(values)} has the value"
        f" {extreme[channel]} in channel {channel}, which is not finite when"
        f" the mean {mean[channel]} is subtracted and the deviation"
        f" {std[channel]} divides it"
      )


def check_spread(
  inputs: np.ndarray | PictureArray,
  mean: np.ndarray,
  std: np.ndarray,
  *,
  where: str,
) -> None:
  """Checks for outliers that would make all other standardized values equal.

  An example is one value of 3e38 among pixels from 0 to 1.

  Args:
    inputs: uint8 or float32 [n, ..., channels].
    mean: float32 [channels], of the inputs.
    std: float32 [channels], of the inputs.
    where: source and split, for the message.

  Raises:
    ValueError: 98 of 100 values of a channel, not all equal, lie within
      `_LEAST_SPREAD` deviations; names the example with the value that is the
      farthest from the mean.
  """
  if isinstance(inputs, PictureArray) or inputs.dtype == np.uint8:
    return
  channels = inputs.shape[-1]
  values = inputs.reshape(-1, channels)
  rows = np.random.default_rng(0).integers(
    len(values), size=max(_CHUNK_VALUES // channels, 1)
  )
  low, high = np.quantile(values[rows], (0.01, 0.99), axis=0)
  spread = (high - low) / std
  lost = np.flatnonzero((spread > 0) & (spread < _LEAST_SPREAD))
  if lost.size:
    channel = lost[0]
    distances = np.abs(values[:, channel].astype(np.float64) - mean[channel])
    row = int(np.argmax(distances))
    raise ValueError(
      f"{where}: example {row * len(inputs) // len(values)} has the value"
      f" {values[row, channel]} in channel {channel}, where nearly all values"
      f" lie between {low[channel]:.4g} and {high[channel]:.4g}: divided by the"
      f" deviation {std[channel]:.4g} they would all be the same number."
      " Correct the value, or set data.standardize=False"
    )
