"""Comparisons of runs as Markdown, and as CSV with more digits."""

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from bitnet_jax import choices
from bitnet_jax.programs.comparing import intervals
from bitnet_jax.programs.comparing.groups import Comparison, Group, shown
from bitnet_jax.programs.comparing.intervals import Estimate
from bitnet_jax.train.folder.listing import FoundRun
from bitnet_jax.train.summary import size

# Shown in percent.
_FRACTIONS = ("accuracy", "f1", "macro_f1")
CAPTION = (
  "Means over seeds with 95 % t-intervals. Differences are of runs with the"
  " same seed, with the 95 % interval and the p-value of a paired t-test; those"
  " of percentages are in percentage points."
)


class Row(NamedTuple):
  """A group with one metric.

  Attributes:
    group: the group.
    metric: its name.
    values: values by seed.
    estimate: mean and interval.
    difference: to the baseline; ``None`` for the baseline, and without a common
      seed.
    size: bytes of the frozen model, see ``sizes.frozen_bytes``.
  """

  group: Group
  metric: str
  values: dict[int, float]
  estimate: Estimate
  difference: Estimate | None
  size: int | None = None


def default_metric(comparison: Comparison, checkpoint: str) -> str:
  """Returns the metric to compare by default.

  It is ``checkpoint.metric`` of the test split, or else as it is, or else the
  first metric, if all runs have it.

  Raises:
    ValueError: if the runs have no metric in common.
  """
  name = comparison.runs[0].config["checkpoint"]["metric"]
  found = [metrics_of(run, checkpoint) for run in comparison.runs]
  for metric in (f"test/{name.partition('/')[2]}", name, *found[0]):
    if all(metric in metrics for metrics in found):
      return metric
  raise ValueError(f"the runs of {comparison.title} have no metric in common")


def metrics_of(run: FoundRun, checkpoint: str) -> dict[str, float]:
  """Returns the metrics of a run at its last or its best checkpoint.

  Raises:
    ValueError: if no checkpoint of the run is its best.
  """
  if checkpoint == "last":
    return run.result["metrics"]
  best = run.result.get("best")
  if best is None:
    raise ValueError(
      f"--checkpoint=best: {run.folder} has no best checkpoint (no evaluation"
      " counts, or checkpoint.keep_best is 0)"
    )
  return best["metrics"]


def rows(
  comparison: Comparison,
  metric: str,
  baseline: Group,
  checkpoint: str,
  stored: Sequence[int | None],
) -> list[Row]:
  """Returns a row for each group.

  Args:
    comparison: the groups.
    metric: name of a metric.
    baseline: the group that others are compared to.
    checkpoint: "last" or "best".
    stored: by group, the bytes of its frozen model.

  Raises:
    ValueError: for a metric that a run does not have, naming those it has.
  """
  of_baseline = _values(baseline, metric, checkpoint)
  found = []
  for group, count in zip(comparison.groups, stored, strict=True):
    values = _values(group, metric, checkpoint)
    difference = None
    if group is not baseline:
      difference = intervals.paired(values, of_baseline)
    estimate = intervals.estimate(list(values.values()))
    found.append(Row(group, metric, values, estimate, difference, count))
  return found


def _values(group: Group, metric: str, checkpoint: str) -> dict[int, float]:
  values = {}
  for seed, run in group.runs.items():
    metrics = metrics_of(run, checkpoint)
    choices.check(metric, metrics, key=f"--metric, for {run.folder},")
    values[seed] = metrics[metric]
  return values


def markdown(found: Sequence[Row], keys: Sequence[str], baseline: Group) -> str:
  """Returns the rows of one metric as a table in Markdown."""
  metric = found[0].metric
  header = [*keys, "size", "runs", metric, "95 % interval"]
  lines = [[*(shown(row.group.values[key]) for key in keys)] for row in found]
  for line, row in zip(lines, found, strict=True):
    line.append("" if row.size is None else size(row.size))
  for line, row in zip(lines, found, strict=True):
    line += [f"{row.estimate.count}", _number(row.estimate.mean, metric)]
    line.append(_interval(row.estimate, metric))
  if len(found) > 1:
    header += [f"difference to {baseline.name}", "95 % interval", "p"]
    for line, row in zip(lines, found, strict=True):
      line += _difference(row, is_baseline=row.group is baseline)
  align = ["---"] * len(keys) + ["---:"] * (len(header) - len(keys))
  table = [header, align, *lines]
  return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in table)


def _cell(text: str) -> str:
  return text.replace("|", "\\|")


def _difference(row: Row, *, is_baseline: bool) -> list[str]:
  if is_baseline:
    return ["", "", ""]
  found = row.difference
  if found is None:
    return ["no common seed", "", ""]
  mean = _number(found.mean, row.metric, sign=True)
  if found.count < row.estimate.count:
    mean += f" (of {found.count})"
  p = "" if found.p_value is None else _p_value(found.p_value)
  return [mean, _interval(found, row.metric, sign=True), p]


def _p_value(p: float) -> str:
  return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _interval(found: Estimate, metric: str, *, sign: bool = False) -> str:
  if found.low is None or found.high is None:
    return "n = 1"
  low, high = (_number(v, metric, sign=sign) for v in (found.low, found.high))
  return f"{low.removesuffix(' %').removesuffix(' points')} to {high}"


def is_fraction(metric: str) -> bool:
  """Whether a metric is shown in percent."""
  return metric.rpartition("/")[2] in _FRACTIONS


def _number(value: float, metric: str, *, sign: bool = False) -> str:
  """Returns a value, or with a sign a difference, as text."""
  plus = "+" if sign else ""
  if is_fraction(metric):
    return f"{100 * value:{plus}.2f} {'points' if sign else '%'}"
  return f"{value:{plus}.4f}"


def _digits(cell: Any) -> Any:
  """Returns a cell of a CSV file, floats with ten digits."""
  if cell is None:
    return ""
  return f"{cell:.10g}" if isinstance(cell, float) else cell


_COLUMNS = (
  "bytes", "runs", "seeds", "metric", "checkpoint", "mean", "low", "high",
  "baseline", "pairs", "difference", "difference_low", "difference_high",
  "p_value",
)  # fmt: skip


def csv_text(
  tables: Sequence[tuple[Comparison, Group, Sequence[Row]]], checkpoint: str
) -> str:
  """Returns the rows of all comparisons as CSV.

  Columns: "data", the keys that differ, and ``_COLUMNS``. Metrics are not in
  percent; what is not defined is empty.
  """
  keys = dict.fromkeys(key for found, *_ in tables for key in found.keys)
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(["data", *keys, *_COLUMNS])
  for comparison, baseline, found in tables:
    for row in found:
      values = row.group.values
      cells: list[Any] = [comparison.title]
      cells += [shown(values[key]) if key in values else "" for key in keys]
      cells += [row.size, row.estimate.count, " ".join(map(str, row.values))]
      cells += [row.metric, checkpoint, *row.estimate[:3], baseline.name]
      other = row.difference
      if other is None:
        cells += [None] * 5
      else:
        cells += [other.count, *other[:3], other.p_value]
      writer.writerow(map(_digits, cells))
  return text.getvalue()
