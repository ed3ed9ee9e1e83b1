"""What a study found: verdicts, tables and figures as plain data."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from bitnet_jax import choices

SCHEMA = "bitnet_jax.findings/1"
KINDS = ("lines", "points", "bars", "heat")
_DIGITS = 5  # significant ones of a number in findings.json


class Verdict(Protocol):
  """What the runs say about a claim: a verdict of ``bitnet_jax.analysis``."""

  def as_json(self) -> dict[str, Any]:
    """Returns its attributes, with "claim", "statement" and "outcome"."""
    ...


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a table.

  Attributes:
    name: in data.
    label: for readers; the name by default.
    unit: of its numbers.
    digits: decimal places that are shown; ``None`` shows numbers as they are.
  """

  name: str
  label: str = ""
  unit: str = ""
  digits: int | None = None


@dataclasses.dataclass(frozen=True)
class Table:
  """A table.

  Attributes:
    name: of lowercase letters, digits and "_".
    title: for readers.
    columns: its columns.
    rows: texts, numbers or ``None``, in the order of the columns.
  """

  name: str
  title: str
  columns: Sequence[Column]
  rows: Sequence[Sequence[Any]]

  def data(self) -> dict[str, Any]:
    """Returns it as JSON."""
    for row in self.rows:
      if len(row) != len(self.columns):
        raise ValueError(
          f"a row of the table {self.name} has {len(row)} values for"
          f" {len(self.columns)} columns"
        )
    columns = [dataclasses.asdict(column) for column in self.columns]
    for column in columns:
      column["label"] = column["label"] or column["name"]
    return {**_named(self), "columns": columns, "rows": self.rows}


@dataclasses.dataclass(frozen=True)
class Axis:
  """An axis of a figure: its label, and whether it is logarithmic."""

  label: str
  log: bool = False


@dataclasses.dataclass(frozen=True)
class Series:
  """Points of a figure.

  Attributes:
    name: for the legend.
    x: numbers, or texts for bars.
    y: numbers; those that are not finite are gaps.
    low: lower ends of intervals, if any.
    high: upper ends.
    z: of a heat map, a row of numbers for each value of ``y``.
  """

  name: str
  x: Sequence[Any]
  y: Sequence[Any]
  low: Sequence[float] | None = None
  high: Sequence[float] | None = None
  z: Sequence[Sequence[float]] | None = None


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure.

  Attributes:
    name: of lowercase letters, digits and "_"; names its file.
    title: for readers.
    kind: one of ``KINDS``.
    x: the horizontal axis.
    y: the vertical axis.
    series: what it shows; one for a heat map.
  """

  name: str
  title: str
  kind: str
  x: Axis
  y: Axis
  series: Sequence[Series]

  def data(self) -> dict[str, Any]:
    """Returns it as JSON."""
    choices.check(self.kind, KINDS, key=f"the kind of the figure {self.name}")
    for series in self.series:
      if self.kind != "heat" and len(series.x) != len(series.y):
        raise ValueError(
          f"{series.name!r} in the figure {self.name} has {len(series.x)}"
          f" values x and {len(series.y)} values y"
        )
    shown = [
      {k: v for k, v in dataclasses.asdict(s).items() if v is not None}
      for s in self.series
    ]
    axes = {"x": dataclasses.asdict(self.x), "y": dataclasses.asdict(self.y)}
    return {**_named(self), "kind": self.kind, **axes, "series": shown}


@dataclasses.dataclass(frozen=True)
class Findings:
  """What a study found.

  Attributes:
    verdicts: at least one for each claim of the plan.
    tables: in the order of the page.
    figures: in the order of the page.
  """

  verdicts: Sequence[Verdict] = ()
  tables: Sequence[Table] = ()
  figures: Sequence[Figure] = ()

  def data(
    self, *, study: str, title: str, scale: str, records: int
  ) -> dict[str, Any]:
    """Returns the content of ``findings.json``."""
    verdicts = [verdict.as_json() for verdict in self.verdicts]
    claims = {f"{v['claim']}": v["claim"] for v in verdicts}
    return plain(
      {
        "schema": SCHEMA,
        "study": study,
        "title": title,
        "scale": scale,
        "records": records,
        "claims": list(claims.values()),
        "verdicts": verdicts,
        "tables": [table.data() for table in self.tables],
        "figures": [figure.data() for figure in self.figures],
      }
    )


def _named(found: Table | Figure) -> dict[str, Any]:
  """Returns name and title, once the name is fit for a file."""
  if (
    not found.name.replace("_", "").isalnum()
    or found.name.lower() != found.name
  ):
    raise ValueError(
      f"{found.name!r} names a table or figure; it must consist of lowercase"
      " letters, digits and _"
    )
  return {"name": found.name, "title": found.title}


def plain(value: Any) -> Any:
  """Returns JSON of few digits; numbers that are not finite become null."""
  if isinstance(value, np.ndarray | np.generic):
    value = value.tolist()
  if isinstance(value, float):
    if not math.isfinite(value):
      return None
    return float(f"{value:.{_DIGITS}g}") + 0.0  # Without a negative zero.
  if isinstance(value, Mapping):
    return {f"{key}": plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple | range):
    return [plain(item) for item in value]
  return value


def text(data: Mapping[str, Any]) -> str:
  """Returns the text of ``findings.json``: a line for each row and series."""
  lines = []
  for key, value in data.items():
    if key not in ("verdicts", "tables", "figures"):
      lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
      continue
    items = ",\n  ".join(map(json.dumps, value))
    lines.append(
      f"{json.dumps(key)}: [\n  {items}\n ]" if value else f'"{key}": []'
    )
  return "{\n " + ",\n ".join(lines) + "\n}\n"
