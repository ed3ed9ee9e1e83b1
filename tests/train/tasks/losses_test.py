"""Losses against their definitions."""

import jax
import numpy as np
import pytest

from bitnet_jax.train.tasks.losses import LossOptions, cross_entropy

LOGITS = np.random.default_rng(0).normal(0, 3, (4, 3, 7)).astype(np.float32)
LABELS = np.arange(12).reshape(4, 3) % 7


def reference(smoothing, z_loss):
  x = LOGITS.astype(np.float64)
  log_z = np.log(np.exp(x).sum(-1, keepdims=True))
  targets = np.eye(7)[LABELS] * (1 - smoothing) + smoothing / 7
  return -(targets * (x - log_z)).sum(-1) + z_loss * log_z[..., 0] ** 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_cross_entropy_is_its_definition(smoothing, z_loss):
  found = cross_entropy(
    LOGITS, LABELS, label_smoothing=smoothing, z_loss=z_loss
  )
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, reference(smoothing, z_loss), rtol=1e-5)


def test_half_precision_logits_are_raised_first():
  logits = jax.numpy.asarray(LOGITS, jax.numpy.bfloat16)
  np.testing.assert_array_equal(
    cross_entropy(logits, LABELS, z_loss=0.1),
    cross_entropy(logits.astype(np.float32), LABELS, z_loss=0.1),
  )


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_bad_share_of_smoothing_is_refused(share):
  with pytest.raises(ValueError, match=f"label_smoothing is {share}"):
    LossOptions(label_smoothing=share)
