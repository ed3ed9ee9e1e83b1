"""Links from numbers to the records behind them.

The page ``records.html`` lists the records that its fragment names:
``#study=xor&cell.precision=b158`` has those of one study and one value of a
cell. Every link from here leads to one record at least.
"""

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from bitnet_jax.report.reading import Study
from bitnet_jax.report.runs import Run, as_text

RECORDS_PAGE = "records.html"
RUN_PAGE = "run.html"
_SIGNS = re.compile(r"[\s/:,;()|_-]+")


def to_records(study: Study, cell: Mapping[str, str] | None = None) -> str:
  """Returns the link to records of a study, those with a cell if given.

  A study without records of its own speaks of those of all studies.
  """
  if not study.runs:
    return RECORDS_PAGE
  values = {f"cell.{key}": value for key, value in (cell or {}).items()}
  fields = urllib.parse.urlencode({"study": study.slug, **values})
  return f"{RECORDS_PAGE}#{fields}"


def to_run(study: Study, run: Run) -> str:
  """Returns the link to the page of a run."""
  fields = urllib.parse.urlencode({"study": study.slug, "run": run.name})
  return f"{RUN_PAGE}#{fields}"


def to_study(study: Study) -> str:
  """Returns the link to the page of a study."""
  return urllib.parse.quote(study_file(study))


def study_file(study: Study) -> str:
  """Returns the name of the page of a study."""
  return f"study-{study.slug}.html"


class Linker:
  """Finds the records behind numbers in findings of a study."""

  def __init__(self, study: Study):
    """Collects the cells of the study, as text."""
    self._study = study
    found = {
      tuple((key, as_text(value)) for key, value in run.cell.items())
      for run in study.runs
    }
    self._cells = [dict(cell) for cell in sorted(found)]
    self._values: dict[str, set[str]] = {}
    for cell in self._cells:
      for key, value in cell.items():
        self._values.setdefault(key, set()).add(value)

  def to(self, *wanted: tuple[str, str]) -> str:
    """Returns the link to records with cell values, as many as exist.

    Args:
      *wanted: pairs of key and value, important ones first. Pairs that no
        record has together with the earlier ones are left out.
    """
    kept: dict[str, str] = {}
    for key, value in wanted:
      tried = {**kept, key: value}
      if any(tried.items() <= cell.items() for cell in self._cells):
        kept = tried
    return to_records(self._study, kept)

  def row(
    self, columns: Sequence[Mapping[str, Any]], row: Sequence[Any]
  ) -> list[str]:
    """Returns a link for each entry in a row of a table.

    A column named like a key of the cells, and an entry that only one key has
    as its value, choose records; so does a column named like a value.
    """
    chosen = []
    for column, entry in zip(columns, row, strict=False):
      text = as_text(entry)
      if text in self._values.get(column.get("name", ""), ()):
        chosen.append((column["name"], text))
      elif isinstance(entry, str):
        chosen += self.named(text)
    return [self.to(*chosen, *self._of_column(column)) for column in columns]

  def named(self, text: str) -> list[tuple[str, str]]:
    """Returns the cell values that a text names, such as "hidden=8, b158"."""
    found = []
    for part in re.split(r",\s*|;\s*", text):
      key, sign, value = (word.strip() for word in part.partition("="))
      if sign and value in self._values.get(key, ()):
        found.append((key, value))
      elif not sign:
        found += self._only(part.strip())
    return found

  def _only(self, text: str) -> list[tuple[str, str]]:
    """Returns the pair whose value is a word, if a single key has it."""
    if not re.search("[A-Za-z]", text):
      return []
    keys = [key for key, values in self._values.items() if text in values]
    return [(keys[0], text)] if len(keys) == 1 else []

  def _of_column(self, column: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the pair that a column's name or label has, if there is one."""
    for name in (column.get("name", ""), column.get("label", "")):
      text = _SIGNS.sub(" ", f"{name}")
      values = [
        (key, value)
        for key, all_of_key in self._values.items()
        for value in all_of_key
        if re.search("[A-Za-z]", value)
        and f" {_SIGNS.sub(' ', value)} " in f" {text} "
      ]
      if values:
        return [max(values, key=lambda pair: (len(pair[1]), pair))]
    return []

  def axis(self, label: str, values: Sequence[Any]) -> str | None:
    """Returns the key of cells that an axis shows, if that is clear.

    Args:
      label: label of the axis.
      values: its values; the key must have them all.
    """
    texts = {as_text(value) for value in values}
    keys = [k for k, of_key in self._values.items() if texts <= of_key]
    named = [k for k in keys if k.replace("_", " ") in label.lower()]
    found = named or keys
    return found[0] if len(found) == 1 else None
