"""What the findings of a study read: its runs with their metrics."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from bitnet_jax import choices
from bitnet_jax.studies import records

At = str | float  # "final", "best", or an epoch
_LEVELS = {"max": np.greater_equal, "min": np.less_equal}


@dataclasses.dataclass(frozen=True)
class Run:
  """A run of a study.

  Attributes:
    record: its record, see ``records``.
  """

  record: Mapping[str, Any]

  @property
  def cell(self) -> Mapping[str, Any]:
    """What distinguishes it from other runs, except the seed."""
    return self.record["cell"]

  @property
  def seed(self) -> int:
    """Its seed."""
    return self.record["seed"]

  @property
  def diverged(self) -> bool:
    """Whether a metric became NaN or infinite."""
    return self.record["diverged"] is not None

  @property
  def layers(self) -> Mapping[str, Mapping[str, float]]:
    """The last code statistics by path of the layer."""
    return self.record["layers"]

  @property
  def config(self) -> dict[str, Any]:
    """Its config with every key."""
    return records.expand(self.record["config"])

  def value(self, metric: str, at: At = "final") -> float:
    """Returns a metric; NaN if the run has none.

    Args:
      metric: such as "test/accuracy".
      at: "final"; "best", of the best checkpoint; or a number of epochs, for
        which the point of the curve that is nearest is taken.
    """
    if at == "final":
      return self.record["metrics"].get(metric, math.nan)
    if at == "best":
      return (self.record["best"] or {"metrics": {}})["metrics"].get(
        metric, math.nan
      )
    if isinstance(at, str):
      choices.check(at, ["final", "best", "a number of epochs"], key="at")
    steps, values = self.curve(metric)
    if not len(steps) or self.diverged:
      return math.nan
    wanted = float(at) / self.record["epochs"] * self.record["step"]
    return float(values[np.abs(steps - wanted).argmin()])

  def curve(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps and values of a metric; both are empty without a curve."""
    curves = self.record["curves"]
    points = [
      (step, value)
      for step, value in zip(
        curves.get("step", ()), curves.get(metric, ()), strict=False
      )
      if value is not None
    ]
    array = np.array(points, np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]

  def steps_to(
    self, metric: str, level: float, mode: str = "max"
  ) -> float | None:
    """Returns the first recorded step at which a metric reaches a level.

    Args:
      metric: name of a curve, such as "valid/accuracy".
      level: the value to reach.
      mode: "max" if more is better, or "min".

    Returns:
      ``None`` if the run does not reach it.
    """
    steps, values = self.curve(metric)
    reached = choices.pick(_LEVELS, mode, key="mode")(values, level)
    return float(steps[reached.argmax()]) if reached.any() else None


class Runs:
  """Runs of a study at one scale, in the order of cells and seeds.

  Attributes:
    scale: the scale, "cpu" for example.
  """

  def __init__(self, runs: Iterable[Run], scale: str = "cpu"):
    self.scale = scale
    self._runs = sorted(runs, key=lambda run: (_order(run.cell), run.seed))

  @classmethod
  def of(cls, found: Iterable[Mapping[str, Any]], scale: str) -> "Runs":
    """Returns the runs of records at a scale."""
    return cls((Run(r) for r in found if r["scale"] == scale), scale)

  def __iter__(self) -> Iterator[Run]:
    return iter(self._runs)

  def __len__(self) -> int:
    return len(self._runs)

  def where(self, **cell: Any) -> "Runs":
    """Returns the runs with these values in their cell.

    A tuple or list of values takes the runs with any of them. Keys that are no
    Python names are given as ``where(**{"a.b": value})``.

    Raises:
      ValueError: for a key that no run has, or a value that none has; names the
        choices.
    """
    found = self._runs
    for key, wanted in cell.items():
      many = wanted if isinstance(wanted, tuple | list) else [wanted]
      known = self.choices(key)
      for value in many:
        choices.check(value, known, key=key)
      found = [run for run in found if run.cell.get(key) in many]
    return Runs(found, self.scale)

  def choices(self, key: str) -> list[Any]:
    """Returns the values of a key of the cells, in order.

    Raises:
      ValueError: for a key that no run has.
    """
    if self._runs:
      keys = sorted({name for run in self._runs for name in run.cell})
      choices.check(key, keys, key="the key of a cell")
    values = {
      _order({"": run.cell[key]}): run.cell[key]
      for run in self._runs
      if key in run.cell
    }
    return [values[order] for order in sorted(values)]

  def group(self, *keys: str) -> dict[tuple[Any, ...], "Runs"]:
    """Returns runs by the values of keys of their cells, in order."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in self._runs:
      found.setdefault(tuple(run.cell.get(k) for k in keys), []).append(run)
    ordered = sorted(found, key=lambda values: _order(dict(enumerate(values))))
    return {values: Runs(found[values], self.scale) for values in ordered}

  def values(
    self, metric: str, at: At = "final", *, diverged: float = math.nan
  ) -> np.ndarray:
    """Returns a metric of all runs.

    Args:
      metric: see ``Run.value``.
      at: see ``Run.value``.
      diverged: the value of runs that diverged.
    """
    return np.array(
      [diverged if run.diverged else run.value(metric, at) for run in self]
    )

  def by_seed(
    self, metric: str, at: At = "final", *, diverged: float = math.nan
  ) -> dict[int, float]:
    """Returns a metric by seed; for arguments, see ``values``.

    Raises:
      ValueError: if two runs have one seed, that is, several cells are left.
    """
    found = self.values(metric, at, diverged=diverged)
    seeds = [run.seed for run in self]
    if len({*seeds}) < len(seeds):
      left = {run.seed: run.record["case"] for run in self}
      twice = [
        r.record["case"] for r in self if r.record["case"] != left[r.seed]
      ]
      raise ValueError(
        f"several runs have one seed, such as {twice[0]} and"
        f" {left[next(iter(left))]}; where(...) chooses one cell"
      )
    return dict(zip(seeds, map(float, found), strict=True))

  def curve(
    self,
    key: str,
    metric: str,
    at: At = "final",
    *,
    diverged: float = math.nan,
  ) -> dict[Any, dict[int, float]]:
    """Returns a metric by the value of a key of the cells, and by seed.

    For other arguments, see ``values``.
    """
    return {
      value: found.by_seed(metric, at, diverged=diverged)
      for (value,), found in self.group(key).items()
    }

  def pair(
    self,
    other: "Runs",
    metric: str,
    at: At = "final",
    *,
    diverged: float = math.nan,
  ) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Returns a metric of these and of other runs, and the seeds of both.

    Seeds that only one of them has are left out. For other arguments, see
    ``values``.
    """
    mine = self.by_seed(metric, at, diverged=diverged)
    others = other.by_seed(metric, at, diverged=diverged)
    seeds = sorted({*mine} & {*others})
    values = ([found[seed] for seed in seeds] for found in (mine, others))
    first, second = map(np.array, values)
    return first, second, seeds

  def best(
    self, key: str, metric: str, mode: str = "max", at: At = "final"
  ) -> Any:
    """Returns the value of a key of the cells whose runs are best on average.

    A value with a run that diverged, or without the metric, is chosen only if
    all have one; then the one with the fewest is.

    Args:
      key: such as "rate".
      metric: see ``Run.value``.
      mode: "max" if more is better, or "min".
      at: see ``Run.value``.
    """
    choices.check(mode, _LEVELS, key="mode")
    sign = 1 if mode == "max" else -1

    def rank(value):
      found = self.where(**{key: value}).values(metric, at)
      bad = np.isnan(found)
      mean = sign * found[~bad].mean() if not bad.all() else -math.inf
      return -bad.sum(), mean

    return max(self.choices(key), key=rank)


def _order(cell: Mapping[Any, Any]) -> tuple[Any, ...]:
  """Returns a key that sorts numbers by value, and before words."""
  return tuple(
    (
      f"{key}",
      isinstance(value, str) or value is None,
      f"{value}" if isinstance(value, str) or value is None else value,
    )
    for key, value in sorted(cell.items(), key=lambda item: f"{item[0]}")
  )
