"""The HTML pages of the site, from the templates of this folder."""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import bitnet_jax
from bitnet_jax.analysis import rules
from bitnet_jax.extras import needed_by
from bitnet_jax.report import leaderboard, links, markdown
from bitnet_jax.report.reading import Found, Study
from bitnet_jax.report.runs import as_text

# The class of an outcome, which has a color and a sign.
_CLASSES = {
  rules.HOLDS: "holds",
  rules.DOES_NOT_HOLD: "fails",
  rules.EQUIVALENT: "equal",
  rules.NOT_DECIDABLE: "open",
}
_ABSENT, _MINUS, _THIN = "\u2013", "\u2212", "\u2009"
_MOST_VALUES = 400  # of a figure that the page lists


@functools.cache
def _environment() -> Any:
  """Returns the templates; they escape what they are given."""
  with needed_by("the report", "jinja2", extra="report"):
    import jinja2
  loader = jinja2.PackageLoader("bitnet_jax.report")
  found = jinja2.Environment(
    loader=loader,
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  filters = {"number": number, "integer": integer, "text": as_text}
  found.filters.update({**filters, "json": _json, "style": _style})
  return found


def _style(outcome: str) -> str:
  """Returns the class of an outcome."""
  return _CLASSES.get(outcome, "open")


def _json(values: Iterable[Any]) -> str:
  """Returns values as a list of texts, for the filters of a page."""
  return json.dumps([f"{value}" for value in values])


def render(template: str, **values: Any) -> str:
  """Returns a page."""
  found = _environment().get_template(template)
  return found.render(version=bitnet_jax.__version__, **values)


def number(value: Any, digits: int | None = None) -> str:
  """Returns a number as text.

  Args:
    value: a number, ``None``, or a text, which is returned unchanged.
    digits: decimal places; by default four significant digits.
  """
  if value is None:
    return _ABSENT
  if isinstance(value, bool) or not isinstance(value, int | float):
    return as_text(value)
  if digits is not None:
    text = f"{value:,.{digits}f}"
  elif isinstance(value, int):
    text = integer(value)
  else:
    text = f"{value:.4g}"
  return text.replace("-", _MINUS).replace(",", _THIN)


def integer(value: int | None) -> str:
  """Returns an integer with thin spaces between thousands."""
  return _ABSENT if value is None else f"{value:,}".replace(",", _THIN)


def all_of(found: Found) -> Iterator[tuple[str, str]]:
  """Yields file name and content of each page."""
  studies = found.studies
  yield "index.html", render("index.html", **_overview(found))
  for study in studies:
    yield links.study_file(study), render("study.html", **_study(study))
  boards = leaderboard.boards(studies)
  yield "leaderboard.html", render("leaderboard.html", boards=boards)
  yield links.RECORDS_PAGE, render("records.html", **_filters(studies))
  yield links.RUN_PAGE, render("run.html")


def _overview(found: Found) -> dict[str, Any]:
  studies = found.studies
  rows = [row for study in studies for row in _verdicts(study)]
  counts = {outcome: 0 for outcome in _CLASSES}
  for row in rows:
    counts[row["outcome"]] = counts.get(row["outcome"], 0) + 1
  runs = [run for study in studies for run in study.runs]
  return {
    "rows": rows,
    "counts": counts,
    "studies": [_summary(study) for study in studies],
    "num_runs": len(runs),
    "num_diverged": sum(run.has_diverged for run in runs),
    "notes": found.notes,
    "waiting": _waiting(studies),
    **_filters(studies),
  }


def _waiting(studies: Sequence[Study]) -> list[tuple[Any, str, str]]:
  """Returns the claims without a verdict: claim, study and its page."""
  judged = {f"{v['claim']}" for study in studies for v in study.verdicts}
  found = [
    (claim, study.slug, links.to_study(study))
    for study in studies
    for claim in study.claims
    if f"{claim}" not in judged
  ]
  return sorted(found, key=lambda entry: _claim_place(entry[0]))


def _filters(studies: Sequence[Study]) -> dict[str, Any]:
  """Returns the choices of the filters of a page."""
  claims = {f"{c}": c for study in studies for c in study.claims}
  return {
    "families": sorted({f for s in studies for f in s.distinct("family")}),
    "recipes": sorted({r for s in studies for r in s.distinct("recipe")}),
    "claims": sorted(claims, key=_claim_place),
    "slugs": [(study.slug, study.title) for study in studies],
    "outcomes": list(_CLASSES),
  }


def _claim_place(claim: Any) -> tuple[int, str]:
  """Returns where a claim is sorted: numbers first."""
  text = f"{claim}"
  if text.isdigit():
    return int(text), ""
  stem, _, last = text.rpartition("-")
  return 1000 + (int(last) if last.isdigit() else 0), stem


def _summary(study: Study) -> dict[str, Any]:
  return {
    "study": study,
    "link": links.to_study(study),
    "records": links.to_records(study) if study.runs else None,
    "families": study.distinct("family"),
    "recipes": study.distinct("recipe"),
    "diverged": sum(run.has_diverged for run in study.runs),
    "scale": study.scale or _scale(study),
  }


def _scale(study: Study) -> str:
  scales = {
    f"{run.record['scale']}" for run in study.runs if "scale" in run.record
  }
  return ", ".join(sorted(scales))


def _verdicts(study: Study) -> list[dict[str, Any]]:
  """Returns the verdicts of a study as the tables show them."""
  linker = links.Linker(study)
  rows = []
  for i, verdict in enumerate(study.verdicts):
    cells = verdict.get("cells") or ""
    interval = verdict.get("interval") or [None, None]
    wanted = linker.named(cells) if isinstance(cells, str) else []
    rows.append(
      {
        "number": i,
        "place": _claim_place(verdict["claim"]),
        "claim": verdict["claim"],
        "statement": verdict["statement"],
        "outcome": verdict["outcome"],
        "effect": verdict.get("effect"),
        "low": interval[0],
        "high": interval[1],
        "bounded": any(end is not None for end in interval),
        "unit": verdict.get("unit") or "",
        "level": verdict.get("level"),
        "seeds": verdict.get("seeds"),
        "seeds_needed": verdict.get("seeds_needed"),
        "reason": verdict.get("reason") or "",
        "scale": verdict.get("scale") or study.scale,
        "cells": _cells(linker, cells),
        "note": cells if isinstance(cells, str) else "",
        "records": linker.to(*wanted),
        "link": f"{links.to_study(study)}#verdict-{i}",
        "study": study.slug,
        "families": study.distinct("family"),
        "recipes": study.distinct("recipe"),
      }
    )
  return rows


def _cells(linker: links.Linker, cells: Any) -> list[dict[str, Any]]:
  """Returns the cells of a verdict, each with a link to its records."""
  if not isinstance(cells, list):
    return []
  found = []
  for cell in cells:
    if isinstance(cell, Mapping) and "name" in cell:
      low, high = cell.get("interval") or (None, None)
      link = linker.to(*linker.named(f"{cell['name']}"))
      keys = ("effect", "seeds", "outcome", "p_value")
      values = {key: cell.get(key) for key in keys}
      ends = {"low": low, "high": high, "link": link}
      found.append({"name": cell["name"], **values, **ends})
  return found


def _study(study: Study) -> dict[str, Any]:
  linker = links.Linker(study)
  tables = []
  for table in study.tables:
    columns = [
      _column(column, [row[i] for row in table["rows"]])
      for i, column in enumerate(table["columns"])
    ]
    rows = [
      list(zip(columns, row, linker.row(columns, row), strict=False))
      for row in table["rows"]
    ]
    tables.append({**table, "columns": columns, "rows": rows})
  return {
    **_summary(study),
    "verdicts": _verdicts(study),
    "tables": tables,
    "figures": [_figure(linker, figure) for figure in study.figures],
    "plan": markdown.render(study.plan),
    "remarks": markdown.render(study.remarks),
  }


def _column(column: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
  """Returns a column, and whether all its values are numbers."""
  name = column.get("name", "")
  found = {"unit": "", "digits": None, "name": name, **column}
  is_number = all(isinstance(v, int | float | None) for v in values)
  return {**found, "label": column.get("label") or name, "is_number": is_number}


def _figure(linker: links.Linker, figure: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a figure with its values, each with a link to its records."""
  x_axis, y_axis = figure.get("x") or {}, figure.get("y") or {}
  found = {"x": x_axis.get("label", "x"), "y": y_axis.get("label", "y")}
  points = (
    _heat(linker, found, figure)
    if figure["kind"] == "heat"
    else _points(linker, found, figure)
  )
  values = [
    point for _, point in zip(range(_MOST_VALUES), points, strict=False)
  ]
  return {
    **found,
    "name": figure["name"],
    "title": figure.get("title") or figure["name"],
    "is_heat": figure["kind"] == "heat",
    "values": values,
  }


def _points(
  linker: links.Linker, labels: Mapping[str, str], figure: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
  for series in figure["series"]:
    of_series = linker.named(f"{series.get('name', '')}")
    key = linker.axis(labels["x"], series["x"])
    low, high = (series.get(k) or () for k in ("low", "high"))
    for i, (x, y) in enumerate(zip(series["x"], series["y"], strict=False)):
      wanted = [*of_series, *([(key, as_text(x))] if key else [])]
      yield {
        "series": series.get("name", ""),
        "x": x,
        "y": y,
        "low": low[i] if i < len(low) else None,
        "high": high[i] if i < len(high) else None,
        "link": linker.to(*wanted),
      }


def _heat(
  linker: links.Linker, labels: Mapping[str, str], figure: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
  for series in figure["series"]:
    of_series = linker.named(f"{series.get('name', '')}")
    keys = [linker.axis(labels[name], series[name]) for name in ("x", "y")]
    for y, row in zip(series["y"], series.get("z") or (), strict=False):
      for x, z in zip(series["x"], row, strict=False):
        pairs = zip(keys, (as_text(x), as_text(y)), strict=True)
        wanted = [*of_series, *((k, v) for k, v in pairs if k)]
        link = linker.to(*wanted)
        name = series.get("name", "")
        yield {"series": name, "x": x, "y": y, "z": z, "link": link}
