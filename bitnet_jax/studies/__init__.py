"""Studies of claims: cases, records, findings, and the page of a study."""

from bitnet_jax.studies.case import PRECISIONS, Case
from bitnet_jax.studies.findings import (
  Axis,
  Column,
  Figure,
  Findings,
  Series,
  Table,
)
from bitnet_jax.studies.runs import Run, Runs
from bitnet_jax.studies.study import Study

__all__ = [
  "PRECISIONS",
  "Axis",
  "Case",
  "Column",
  "Figure",
  "Findings",
  "Run",
  "Runs",
  "Series",
  "Study",
  "Table",
]
