"""Runs of two cells with the same seed, and what a diverged run counts as."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

Values = Mapping[int, float | None]
Diverged = float | Literal["exclude"]


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """The runs of two cells, by seed.

  Attributes:
    seeds: seeds of the pairs, ``[n]``.
    first: values of the first cell, float64 ``[n]``.
    second: values of the second cell with the same seeds.
    notes: seeds that were left out or whose value was substituted.
  """

  seeds: tuple[int, ...]
  first: np.ndarray
  second: np.ndarray
  notes: tuple[str, ...] = ()

  @property
  def differences(self) -> np.ndarray:
    """``first - second``; 0 where both are the same infinity."""
    equal = self.first == self.second
    with np.errstate(invalid="ignore"):
      return np.where(equal, 0.0, self.first - self.second)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Values of several cells, of the seeds that all of them have.

  Attributes:
    seeds: ``[n]``.
    values: float64 ``[n, cells]``.
    notes: seeds that were left out or whose value was substituted.
  """

  seeds: tuple[int, ...]
  values: np.ndarray
  notes: tuple[str, ...] = ()


def pair(first: Values, second: Values, *, diverged: Diverged) -> Pairs:
  """Pairs the runs of two cells by seed.

  Two runs with one seed share their initial parameters and batches, as far as
  their configs allow, so their difference varies less than that of two seeds.

  Args:
    first: values by seed; ``None`` or NaN is a diverged run.
    second: those of the other cell.
    diverged: what a diverged run counts as: a number, such as the loss of
      uniform predictions or an infinity where wins are counted; "exclude"
      leaves the pair out, which favors the cell that diverges more often.

  Raises:
    ValueError: if no pair is left, and for another word.
  """
  found = table({"first": first, "second": second}, diverged=diverged)
  a, b = found.values.T
  return Pairs(found.seeds, a, b, found.notes)


def table(cells: Mapping[Any, Values], *, diverged: Diverged) -> Table:
  """Aligns the values of several cells by seed.

  Args:
    cells: values by seed, as of ``pair``.
    diverged: see ``pair``; "exclude" leaves out a seed that diverged anywhere.

  Raises:
    ValueError: see ``pair``.
  """
  if isinstance(diverged, str) and diverged != "exclude":
    raise ValueError(
      f"diverged is {diverged!r}, which is neither 'exclude' nor a number"
    )
  everywhere = sorted(set.union(*map(set, cells.values())) if cells else ())
  seeds = [s for s in everywhere if all(s in c for c in cells.values())]
  missing = [s for s in everywhere if s not in seeds]
  values = np.array(
    [[_number(cell[seed]) for cell in cells.values()] for seed in seeds], float
  ).reshape(len(seeds), len(cells))
  failed = np.isnan(values)
  broken = [bool(row.any()) for row in failed]
  notes = []
  if missing:
    notes.append(f"left out, not run in each cell: {_seeds(missing)}")
  if any(broken):
    listed = _seeds(s for s, b in zip(seeds, broken, strict=True) if b)
    if isinstance(diverged, str):
      notes.append(f"left out, a run diverged: {listed}")
      values = values[np.logical_not(broken)]
      seeds = [s for s, b in zip(seeds, broken, strict=True) if not b]
    else:
      notes.append(f"a diverged run counts as {diverged:g}: {listed}")
      values = np.where(failed, diverged, values)
  if not seeds:
    raise ValueError(
      "no seed is left to compare"
      + (f" ({'; '.join(notes)})" if notes else ": no cell has a run")
    )
  return Table(tuple(seeds), values, tuple(notes))


def average(cells: Iterable[Pairs]) -> Pairs:
  """Returns the mean over cells by seed, of the seeds that all cells have."""
  cells = list(cells)
  first = [dict(zip(c.seeds, c.first, strict=True)) for c in cells]
  second = [dict(zip(c.seeds, c.second, strict=True)) for c in cells]
  found = table(dict(enumerate(first + second)), diverged="exclude")
  notes = dict.fromkeys(note for cell in cells for note in cell.notes)
  a, b = (m.mean(axis=1) for m in np.split(found.values, 2, axis=1))
  return Pairs(found.seeds, a, b, (*notes, *found.notes))


def _number(value: float | None) -> float:
  return math.nan if value is None else float(value)


def _seeds(seeds: Iterable[int]) -> str:
  listed = [str(seed) for seed in seeds]
  return f"seed{'s' if len(listed) > 1 else ''} {', '.join(listed)}"
