"""Records as script files, which pages load without a server.

A page that was opened from disk may not fetch files, but it may run scripts. So
each file calls ``bitnetReport.add(NAME, DATA)``: an index of each study, with a
line for each run, and its records in parts.
"""

import json
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from bitnet_jax.report import links
from bitnet_jax.report.reading import Study
from bitnet_jax.report.runs import Run, as_text

FOLDER = "data"
RUNS_A_CHUNK = 100
_DIGITS = 6  # significant ones of a metric in an index
_COLUMNS = (
  *("name", "seed", "scale", "family", "recipe", "data", "params"),
  *("diverged", "cell", "metrics"),
)


def script(name: str, data: Any) -> str:
  """Returns a script that adds data to the page under a name."""
  # A record may hold any text, and "</script>" must not end an element.
  text = json.dumps(data, separators=(",", ":"), allow_nan=False)
  text = text.replace("<", "\\u003c")
  return f"bitnetReport.add({json.dumps(name)},{text});\n"


def all_of(studies: Sequence[Study]) -> Iterator[tuple[str, str]]:
  """Yields path below the site and content of each script."""
  yield f"{FOLDER}/studies.js", script("studies", list(map(_entry, studies)))
  for study in studies:
    where = f"{FOLDER}/{study.slug}"
    yield f"{where}.index.js", script(f"{study.slug}/index", _index(study))
    yield (
      f"{where}.figures.js",
      script(f"{study.slug}/figures", _figures(study)),
    )
    for start in range(0, len(study.runs), RUNS_A_CHUNK):
      number = start // RUNS_A_CHUNK
      runs = study.runs[start : start + RUNS_A_CHUNK]
      content = script(f"{study.slug}/{number}", list(map(_record, runs)))
      yield f"{where}.{number}.js", content


def _entry(study: Study) -> dict[str, Any]:
  """Returns what every page knows of a study."""
  return {
    "slug": study.slug,
    "title": study.title,
    "page": links.to_study(study),
    "data": f"{FOLDER}/{urllib.parse.quote(study.slug)}",
    "claims": [f"{claim}" for claim in study.claims],
    "runs": len(study.runs),
    "chunk": RUNS_A_CHUNK,
  }


def _index(study: Study) -> dict[str, Any]:
  """Returns the runs of a study as rows of few values."""
  keys = list(dict.fromkeys(key for run in study.runs for key in run.cell))
  metrics = sorted({name for r in study.runs for name in r.record["metrics"]})

  def row(run: Run) -> list[Any]:
    record = run.record
    cell = [as_text(run.cell[k]) if k in run.cell else None for k in keys]
    values = [_rounded(record["metrics"].get(name)) for name in metrics]
    named = [run.name, record.get("seed"), record.get("scale"), run.family]
    named += [run.recipe, run.data, record.get("num_params")]
    return [*named, record.get("diverged"), cell, values]

  main = sorted({run.metric for run in study.runs})
  shown = [name for name in metrics if name in main] or metrics[:1]
  return {
    "columns": _COLUMNS,
    "cells": keys,
    "metrics": metrics,
    "main": shown,
    "rows": list(map(row, study.runs)),
  }


def _rounded(value: Any) -> Any:
  return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _record(run: Run) -> dict[str, Any]:
  """Returns a record with its place, for the page of its run."""
  return {"file": run.file, "line": run.line, "record": run.record}


def _figures(study: Study) -> dict[str, Any]:
  """Returns the figures of a study, with one of the cells of each verdict."""
  found = {figure["name"]: figure for figure in study.figures}
  return {"figures": found, "verdicts": list(study.verdicts)}
