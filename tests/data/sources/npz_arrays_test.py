import hashlib
import os
import pathlib

import numpy as np
import pytest

from bitnet_jax.data.sources import npz_arrays


def noise(shape, seed=0):
  return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def encode(pixels):
  """The packed form, straight from its description."""
  planes = pixels.transpose(3, 0, 1, 2).copy()
  planes[0] -= planes[1]
  planes[2] -= planes[1]
  residuals = planes.copy()
  residuals[..., 1:] -= planes[..., :-1]
  residuals[:, :, 1:, 0] -= planes[:, :, :-1, 0]
  return residuals


def test_decode_residuals_undoes_the_packing():
  pixels = noise((5, 4, 6, 3))
  residuals = encode(pixels)
  before = residuals.copy()
  decoded = npz_arrays.decode_residuals(residuals)
  assert decoded.dtype == np.uint8
  assert decoded.flags.c_contiguous
  np.testing.assert_array_equal(decoded, pixels)
  np.testing.assert_array_equal(residuals, before)


def test_decode_residuals_matches_values_worked_by_hand():
  residuals = np.zeros((3, 1, 2, 2), np.uint8)
  residuals[1, 0] = [[10, 1], [5, 255]]  # green: 10 11 / 15 14
  residuals[0, 0] = [[250, 0], [0, 0]]  # red less green: -6 everywhere
  residuals[2, 0] = [[1, 0], [0, 1]]  # blue less green: 1 1 / 1 2
  np.testing.assert_array_equal(
    npz_arrays.decode_residuals(residuals)[0],
    [[[4, 10, 11], [5, 11, 12]], [[9, 15, 16], [8, 14, 16]]],
  )


@pytest.mark.parametrize(
  ("member", "sha256"),
  [
    (
      "x_train_res",
      "42e433932421140ace6034f03e88236f16314f9e07e8db2ebb6fd5e7d5f43b0b",
    ),
    (
      "x_test_res",
      "cfad52e4a7fb0184dcdd398a19653c59b261facf6052337dd2ad6ead44262a0b",
    ),
  ],
)
def test_decoded_cifar100_has_the_published_content(member, sha256):
  folder = os.environ.get("BITNET_JAX_DATA")
  if not folder or not pathlib.Path(folder).is_dir():
    pytest.skip("BITNET_JAX_DATA names no folder of data sets")
  file = pathlib.Path(folder) / "cifar100_subset" / "cifar100_subset.npz"
  decoded = npz_arrays.decode_residuals(np.load(file)[member])
  assert hashlib.sha256(decoded.tobytes()).hexdigest() == sha256
