"""Confidence distributions: the limits of intervals at every level."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from bitnet_jax.extras import needed_by


class Distribution(Protocol):
  """A confidence distribution: the interval limits of all levels at once."""

  def quantile(self, p: float) -> float:
    """Returns the limit below which the true value lies with confidence p."""
    ...

  def cumulative(self, x: float) -> float:
    """Returns the confidence p of the limit ``x``, between 0 and 1."""
    ...


@dataclasses.dataclass(frozen=True)
class Student:
  """Student's t-distribution, shifted by ``value`` and scaled by ``error``.

  Attributes:
    value: its center.
    error: standard error; 0 for values without variance, infinite for a single
      value.
    degrees: degrees of freedom.
  """

  value: float
  error: float
  degrees: float

  def quantile(self, p: float) -> float:
    """See ``Distribution``."""
    if self.error == 0:
      return self.value
    if math.isinf(self.error):
      return math.copysign(math.inf, p - 0.5)
    return self.value + self.error * float(_special().stdtrit(self.degrees, p))

  def cumulative(self, x: float) -> float:
    """See ``Distribution``."""
    if self.error == 0:
      return (1 + float(np.sign(x - self.value))) / 2
    if math.isinf(self.error):
      return 0.5
    return float(_special().stdtr(self.degrees, (x - self.value) / self.error))


@dataclasses.dataclass(frozen=True)
class Exponential:
  """The distribution of exp(x), where ``log`` is that of x."""

  log: Distribution

  def quantile(self, p: float) -> float:
    """See ``Distribution``."""
    return exp(self.log.quantile(p))

  def cumulative(self, x: float) -> float:
    """See ``Distribution``."""
    return self.log.cumulative(math.log(x)) if x > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Limits:
  """A distribution that is known by its limits: ``cumulative`` inverts them."""

  limit: Callable[[float], float]

  def quantile(self, p: float) -> float:
    """See ``Distribution``."""
    return self.limit(p)

  def cumulative(self, x: float) -> float:
    """See ``Distribution``; by bisection, to 1e-9."""
    low, high = 0.0, 1.0
    for _ in range(30):
      middle = (low + high) / 2
      if self.limit(middle) < x:
        low = middle
      else:
        high = middle
    return (low + high) / 2


@dataclasses.dataclass(frozen=True)
class Fieller:
  """Fieller's distribution of the ratio of two means of pairs.

  Attributes:
    first: mean of the numerator.
    second: mean of the denominator, positive.
    covariance: of the two means, ``[2, 2]``.
    degrees: degrees of freedom.
  """

  first: float
  second: float
  covariance: np.ndarray
  degrees: int

  def quantile(self, p: float) -> float:
    """See ``Distribution``; infinite if the denominator may be 0."""
    t = float(_special().stdtrit(self.degrees, p))
    (var_a, cov), (_, var_b) = t * t * self.covariance
    a = self.second**2 - var_b
    b = self.first * self.second - cov
    c = self.first**2 - var_a
    if a <= 0:
      return math.copysign(math.inf, t)
    root = math.sqrt(max(b * b - a * c, 0.0))
    return float((b + math.copysign(root, t)) / a)

  def cumulative(self, x: float) -> float:
    """See ``Distribution``.

    No finite ``x`` is a limit with more confidence than there is in the sign of
    the denominator, as for ``quantile``.
    """
    if math.isinf(x):
      return float(x > 0)
    difference = x * self.second - self.first
    found = self._student(np.array([1.0, -x])).cumulative(difference)
    doubt = self._student(np.array([0.0, 1.0])).cumulative(-self.second)
    return min(max(found, doubt), 1 - doubt)

  def _student(self, weights: np.ndarray) -> Student:
    """Returns the distribution of the error of a weighted sum of the means."""
    variance = float(weights @ self.covariance @ weights)
    return Student(0.0, math.sqrt(max(variance, 0.0)), self.degrees)


def exp(x: float) -> float:
  """Returns e to the power of ``x``, infinite where it overflows."""
  return math.exp(x) if x < 700 else math.inf


def _special() -> Any:
  with needed_by("statistics", "scipy"):
    from scipy import special
  return special
