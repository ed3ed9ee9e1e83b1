"""Compares run folders: from their names to tables and figures."""

import dataclasses
from collections.abc import Iterable, Sequence

from bitnet_jax.files import PathLike, local_path, write_atomically
from bitnet_jax.programs.comparing import groups, sizes, table
from bitnet_jax.programs.comparing.groups import Comparison, Group
from bitnet_jax.programs.comparing.table import Row


@dataclasses.dataclass(frozen=True)
class Report:
  """What comparing runs found.

  Attributes:
    tables: a comparison, its baseline, and its rows for one metric, each.
    notes: lines on runs that are left out.
    checkpoint: "last" or "best".
  """

  tables: Sequence[tuple[Comparison, Group, Sequence[Row]]]
  notes: Sequence[str]
  checkpoint: str

  @property
  def comparisons(self) -> list[Comparison]:
    """The comparisons, each once."""
    return list({id(found): found for found, *_ in self.tables}.values())

  def markdown(self) -> str:
    """Returns all tables in Markdown."""
    parts, before = [], None
    for comparison, baseline, rows in self.tables:
      if comparison is not before:
        parts.append(f"## {comparison.title}")
      before = comparison
      parts.append(table.markdown(rows, comparison.keys, baseline))
    caption = table.CAPTION
    if self.checkpoint == "best":
      caption += " Metrics are of the best checkpoint of each run."
    return "\n\n".join([*parts, caption])

  def csv(self) -> str:
    """Returns all tables as CSV."""
    return table.csv_text(self.tables, self.checkpoint)


def compare(
  folders: Iterable[PathLike],
  *,
  baseline: str | None = None,
  metrics: Sequence[str] = (),
  checkpoint: str = "last",
) -> Report:
  """Compares the finished runs in folders.

  Args:
    folders: run folders, or folders of them.
    baseline: name of the group that others are compared to, or a part of it,
      see ``Comparison.pick``; by default the first group.
    metrics: names of metrics; by default one, see ``table.default_metric``.
    checkpoint: "last" or "best".

  Raises:
    ValueError: without a finished run, and for an unknown baseline or metric.
    FileNotFoundError: for a folder that does not exist.
  """
  runs, notes = groups.find(folders)
  comparisons, repeated = groups.separate(runs, metrics)
  tables = []
  for comparison in comparisons:
    base = comparison.groups[0]
    if baseline is not None:
      base = comparison.pick(baseline)
    stored = [sizes.frozen_bytes(g.first.folder) for g in comparison.groups]
    for metric in metrics or [table.default_metric(comparison, checkpoint)]:
      rows = table.rows(comparison, metric, base, checkpoint, stored)
      tables.append((comparison, base, rows))
  return Report(tables, [*notes, *repeated], checkpoint)


def write_csv(report: Report, path: PathLike) -> None:
  """Writes the tables to a CSV file, whole or not at all.

  Raises:
    OSError: if it cannot be written, or if it is a folder.
  """
  path = local_path(path)
  if path.is_dir():
    raise IsADirectoryError(f"--csv={path} is a folder; name a file in it")
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, report.csv())
