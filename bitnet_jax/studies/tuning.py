"""Findings about fine-tuned nets: scores of ternary nets of two widths."""

from collections.abc import Mapping
from typing import Any

from bitnet_jax.analysis import pairs
from bitnet_jax.studies import comparisons, summaries
from bitnet_jax.studies.findings import Findings
from bitnet_jax.studies.runs import Runs

FULL, TERNARY = "float32", "b158"


def findings(
  runs: Runs, metrics: Mapping[str, str], *, margin: float, **about: Any
) -> Findings:
  """Compares the scores of fine-tuned nets of two widths on several tasks.

  The verdict, over the tasks: the wider ternary nets score no worse than the
  narrower ones in full precision. The figure has the narrower ternary nets,
  too. A run that diverged has the score 0.

  Args:
    runs: with the keys "task", "precision" and "width" in their cells; runs
      without "task" are left out.
    metrics: the score of each task, at most 1.
    margin: the loss that does not matter, in points of 100.
    **about: further arguments of ``verdict``, such as "claim".
  """
  wide: dict[str, dict[str, pairs.Pairs]] = {"twice": {}, "equal": {}}
  tables = []
  for task in runs.choices("task"):
    tuned, metric = runs.where(task=task), metrics[task]
    least, most = min(tuned.choices("width")), max(tuned.choices("width"))
    for name, width in (("twice", most), ("equal", least)):
      wide[name] |= comparisons.compare(
        tuned,
        {"precision": TERNARY, "width": width},
        {"precision": FULL, "width": least},
        keys=("task",),
        metric=metric,
        diverged=0,
        factor=100,
      )
    title = f"Scores of {task}: {metric}"
    keys = ("precision", "width")
    tables.append(summaries.table(task, title, tuned, keys, metric))
  text = f"fine-tuned {TERNARY} of twice the width is no worse than {FULL}"
  judged = comparisons.no_worse(
    runs, wide["twice"], statement=text, margin=margin, **about
  )
  label = f"score minus {FULL}"
  compared = {f"{TERNARY}, {name} width": c for name, c in wide.items()}
  figure = comparisons.figure(
    "scores", "Fine-tuned scores (points)", compared, label
  )
  return Findings([judged], tables, [figure])


def joined(first: Findings, second: Findings) -> Findings:
  """Returns all verdicts, tables and figures of two."""
  return Findings(
    [*first.verdicts, *second.verdicts],
    [*first.tables, *second.tables],
    [*first.figures, *second.figures],
  )
