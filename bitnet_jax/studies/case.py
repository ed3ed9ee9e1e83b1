"""Cases: the runs that a study consists of."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from bitnet_jax import choices
from bitnet_jax.programs.sweeping import grid

# Number formats that studies compare, as values of config keys.
PRECISIONS: Mapping[str, Mapping[str, Any]] = {
  "float32": {"quant.recipe": "float"},
  "bfloat16": {"quant.recipe": "float", "model.dtype": "bfloat16"},
  "b158": {"quant.recipe": "b158"},
  "b158_median": {"quant.recipe": "b158_median"},
}
_STARTS = ("init_from", "distill.teacher")


@dataclasses.dataclass(frozen=True)
class Case:
  """One run of a study.

  Attributes:
    config: config file, optionally with ":VARIANT".
    cell: what distinguishes it from the other cases, except the seed.
    seed: its seed; cases with equal seeds are paired.
    overrides: values by dotted key, with those that ``cell`` stands for.
    after: names of other cases, by the dotted key that takes the folder of that
      run: "init_from" or "distill.teacher". They run first.
  """

  config: str
  cell: Mapping[str, Any]
  seed: int = 0
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  after: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for key in self.after:
      choices.check(key, _STARTS, key="a key of after")
    if "seed" in self.cell or "seed" in self.overrides:
      raise ValueError("the seed of a case is neither in cell nor in overrides")

  @property
  def name(self) -> str:
    """Names record and folder: "hidden=8,precision=b158,seed=3"."""
    return grid.name_of({**self.cell, "seed": self.seed})

  @property
  def values(self) -> dict[str, Any]:
    """The overrides with the seed, by dotted key."""
    return {**self.overrides, "seed": self.seed}


def by_name(cases: Iterable[Case]) -> dict[str, Case]:
  """Returns cases by name, each after those that it starts from.

  Raises:
    ValueError: for two cases with one name, or a case that starts from a case
      that is not there.
  """
  known: dict[str, Case] = {}
  for case in cases:
    if case.name in known:
      raise ValueError(f"two cases are named {case.name}")
    known[case.name] = case
  ordered: dict[str, Case] = {}

  def add(name: str) -> None:
    if name in ordered:
      return
    for key, other in known[name].after.items():
      choices.check(other, known, key=f"{key} of the case {name}")
      add(other)
    ordered[name] = known[name]

  for name in known:
    add(name)
  return ordered
