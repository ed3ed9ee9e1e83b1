"""Times functions in turn, so that noise affects all of them equally."""

import dataclasses
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

# Minimum seconds of one measurement, which repeats short calls.
_SLICE = 0.02
_MAX_CALLS = 1000

# Makes this many calls one after the other and returns their seconds.
Run = Callable[[int], float]


@dataclasses.dataclass(frozen=True)
class Quartiles:
  """A median with the quartiles around it.

  Attributes:
    q1: a quarter of the measurements lie below.
    median: the middle.
    q3: a quarter lie above.
  """

  q1: float
  median: float
  q3: float

  @classmethod
  def of(cls, values: Sequence[float] | np.ndarray) -> "Quartiles":
    """Returns the quartiles of a list of measurements."""
    return cls(*(float(q) for q in np.percentile(values, (25, 50, 75))))


@dataclasses.dataclass(frozen=True)
class Case:
  """Functions to time and compare.

  Attributes:
    name: name of the case.
    runs: the timed functions, by name.
    ratios: pairs of names; the time of the first over that of the second.
  """

  name: str
  runs: Mapping[str, Run]
  ratios: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Timings:
  """The measurements of a case.

  Attributes:
    milliseconds: of one call, by name.
    ratios: of two calls in the same round, by "a / b".
  """

  milliseconds: dict[str, Quartiles]
  ratios: dict[str, Quartiles]


def jitted(f: Callable[..., Any], *args: Any) -> Run:
  """Compiles ``f`` for ``args`` and returns a timer of it."""
  return timed(jax.jit(f).lower(*args).compile(), *args)


def timed(f: Callable[..., Any], *args: Any) -> Run:
  """Returns a timer of ``f(*args)``, which waits for each result."""

  def run(calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
      jax.block_until_ready(f(*args))
    return time.perf_counter() - start

  return run


def measure(case: Case, rounds: int) -> Timings:
  """Times the functions of a case in turn, for ``rounds`` rounds.

  Each round has a new order, since a function may leave memory or threads that
  slow down the next one.
  """
  order = list(case.runs)
  draw = random.Random(0)
  calls = {name: _calls(run) for name, run in case.runs.items()}
  times: dict[str, list[float]] = {name: [] for name in case.runs}
  for _ in range(rounds):
    draw.shuffle(order)
    for name in order:
      case.runs[name](1)
      times[name].append(1e3 * case.runs[name](calls[name]) / calls[name])
  return Timings(
    {name: Quartiles.of(values) for name, values in times.items()},
    {
      f"{a} / {b}": Quartiles.of(np.divide(times[a], times[b]))
      for a, b in case.ratios
    },
  )


def _calls(run: Run) -> int:
  """Warms up, and returns how many calls fill a measurement."""
  run(1)
  seconds = min(run(1) for _ in range(3))
  return min(math.ceil(_SLICE / max(seconds, 1e-9)), _MAX_CALLS)
