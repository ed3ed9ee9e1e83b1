"""Whether a study that ran again from nothing found the same."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

HEADER = (
  "| claim | statement | effect (interval), committed | effect, again |"
  " within | verdict, again |\n|---|---|---:|---:|---|---|"
)
_SAME = "the same"


class Pair(NamedTuple):
  """A verdict, and that of the runs that were made again.

  Attributes:
    committed: as ``findings.json`` has it.
    again: likewise.
  """

  committed: Mapping[str, Any]
  again: Mapping[str, Any]

  @property
  def is_within(self) -> bool:
    """Whether the new effect lies in the committed interval."""
    low, high = self.committed["interval"]
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    found = self.again["effect"]
    if found is None:
      return self.committed["effect"] is None
    return low <= found <= high

  @property
  def row(self) -> str:
    """A row of the table, below ``HEADER``."""
    old, new = self
    outcome = old["outcome"]
    outcome = _SAME if new["outcome"] == outcome else new["outcome"]
    interval = " to ".join(map(_shown, old["interval"]))
    cells = (
      old["claim"],
      old["statement"],
      f"{_shown(old['effect'])} ({interval}) {old['unit']}",
      _shown(new["effect"]),
      "yes" if self.is_within else "**no**",
      outcome,
    )
    return f"| {' | '.join(map(str, cells))} |"


def pairs(
  committed: Mapping[str, Any], again: Mapping[str, Any]
) -> Iterator[Pair]:
  """Yields the verdicts of two contents of ``findings.json``.

  Raises:
    ValueError: if one of them has a verdict that the other lacks.
  """
  old, new = _by_statement(committed), _by_statement(again)
  for claim, statement in old.keys() ^ new.keys():
    raise ValueError(
      f"only one of both findings has a verdict on claim {claim}, {statement!r}"
    )
  for key in old:
    yield Pair(old[key], new[key])


def table(found: Sequence[Pair]) -> str:
  """Returns the verdicts as Markdown, and how many effects agree."""
  within = sum(pair.is_within for pair in found)
  rows = "\n".join(pair.row for pair in found)
  end = f"{within} of {len(found)} effects are within the committed intervals."
  return f"{HEADER}\n{rows}\n\n{end}"


def _by_statement(data: Mapping[str, Any]) -> dict[Any, Mapping[str, Any]]:
  return {(v["claim"], v["statement"]): v for v in data["verdicts"]}


def _shown(number: float | None) -> str:
  return "none" if number is None else f"{number:.3g}"
