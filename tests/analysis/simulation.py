"""Simulated runs, and how far a simulated rate may be from its nominal one."""

import math

import numpy as np

from bitnet_jax.analysis import pairs


def tolerance(rate, count):
  """Returns 3.5 standard errors of a rate over ``count`` simulations."""
  return 3.5 * math.sqrt(rate * (1 - rate) / count)


def coverage(found, truth, level=0.95):
  """Returns how often the intervals of estimates contain the truth."""
  ends = [estimate.interval(level) for estimate in found]
  return np.mean([low <= truth <= high for low, high in ends])


def paired(first, second):
  """Returns ``Pairs`` of two arrays."""
  return pairs.Pairs(tuple(range(len(first))), first, second)


def runs(rng, count, effect, noise=0.01, shared=0.02):
  """Returns ``Pairs`` of runs whose seeds have an effect on both sides."""
  base = 0.9 + shared * rng.normal(size=count)
  values = base + noise * rng.normal(size=(2, count))
  return paired(values[0] + effect, values[1])
