"""Losses, in float32, and their options."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
  """The keys of the group ``task`` that every task has.

  Attributes:
    label_smoothing: see ``cross_entropy``; in training only.
  """

  label_smoothing: float

  def __post_init__(self):
    if not 0 <= self.label_smoothing < 1:
      raise ValueError(
        f"task.label_smoothing is {self.label_smoothing}; it must lie in [0, 1)"
      )


def cross_entropy(
  logits: Float[Array, "*batch classes"],
  labels: Int[Array, "*batch"],
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> Float[Array, "*batch"]:
  """Returns the softmax cross-entropy in nats, computed in float32.

  Args:
    logits: logits of any float dtype.
    labels: class of each.
    label_smoothing: fraction of the target that is spread evenly over all
      classes.
    z_loss: weight of the squared log of the partition function, which keeps
      logits from drifting (PaLM, 2204.02311).
  """
  logits = logits.astype(jnp.float32)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  if label_smoothing or z_loss:
    log_z = jax.nn.logsumexp(logits, axis=-1)
    if label_smoothing:
      # The loss against the even distribution.
      even = log_z - jnp.mean(logits, axis=-1)
      losses = (1 - label_smoothing) * losses + label_smoothing * even
    losses = losses + z_loss * jnp.square(log_z)
  return losses
