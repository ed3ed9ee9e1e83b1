"""The README of a study: its plan, and the block of findings below it."""

import hashlib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from bitnet_jax.files import read_bytes

PAGE_FILE = "README.md"
PLAN_END = "<!-- end of plan -->"
START, END = "<!-- findings -->", "<!-- end -->"
_LARGEST = 2**22  # bytes
# Numbers and words such as "outside-1", up to a remark.
_CLAIMS = re.compile(
  r"^\W*claims?\W*:\W*((?:(?:[a-z]+-)?\d+(?:,| and)?\s*)+)", re.I | re.M
)


def read(path: pathlib.Path) -> str:
  """Returns the text of a README.

  Raises:
    FileNotFoundError: if it is not there.
    ValueError: if it lacks a marker, or has one twice; names it.
  """
  text = read_bytes(path, most=_LARGEST).decode()
  places = []
  for marker in (PLAN_END, START, END):
    if text.count(f"{marker}\n") != 1:
      raise ValueError(
        f"{path} must have the line {marker} once; it has it"
        f" {text.count(marker)} times"
      )
    places.append(text.index(marker))
  if places != sorted(places):
    raise ValueError(
      f"{path} must have {PLAN_END}, {START}, {END} in this order"
    )
  return text


def title(text: str) -> str:
  """Returns the title of a page."""
  return text.partition("\n")[0].removeprefix("#").strip()


def claims(text: str) -> list[int | str]:
  """Returns the claims that the plan names in a line "Claims: 7, 8".

  Raises:
    ValueError: if it names none.
  """
  plan = text.partition(PLAN_END)[0]
  found = _CLAIMS.search(plan)
  words = re.findall(r"(?:[a-z]+-)?\d+", found[1]) if found else []
  if not words:
    raise ValueError('the plan has no line such as "Claims: 7, 8"')
  return [int(word) if word.isdigit() else word for word in words]


def stamp(text: str) -> str:
  """Returns twelve hexadecimal digits that name the plan of a page."""
  plan = text.partition(PLAN_END)[0]
  words = "\n".join(line.rstrip() for line in plan.strip().splitlines())
  return hashlib.sha256(words.encode()).hexdigest()[:12]


def with_findings(text: str, block: str) -> str:
  """Returns a page with another block of findings."""
  before, _, rest = text.partition(f"{START}\n")
  after = rest.partition(f"{END}\n")[2]
  return f"{before}{START}\n{block}{END}\n{after}"


def block(data: Mapping[str, Any]) -> str:
  """Returns findings as Markdown.

  Args:
    data: the content of ``findings.json``.
  """
  runs = f"{data['records']} runs at the scale `{data['scale']}`."
  parts = [runs, *_verdicts(data["verdicts"])]
  for table in data["tables"]:
    parts += [f"**{table['title']}**", _table(table)]
  for figure in data["figures"]:
    parts.append(f"![{figure['title']}]({figure['name']}.svg)")
  return "\n\n".join(parts) + "\n"


def _verdicts(verdicts: Any) -> list[str]:
  """Returns the table of verdicts, and the reasons below it."""
  if not verdicts:
    return []
  rows = [
    [
      f"{v['claim']}",
      v["statement"],
      f"**{v['outcome']}**",
      _effect(v),
      _seeds(v),
    ]
    for v in verdicts
  ]
  heads = ["claim", "statement", "verdict", "effect", "seeds"]
  reasons = [
    f"- Claim {v['claim']}: {v['reason']}" for v in verdicts if v.get("reason")
  ]
  table = _markdown(heads, rows, numbers=())
  return [table, "\n".join(reasons)] if reasons else [table]


def _effect(verdict: Mapping[str, Any]) -> str:
  """Returns an effect with its interval: "-0.4 [-0.6, -0.2] points (95 %)"."""
  text = number(verdict["effect"])
  interval = verdict.get("interval")
  if interval is not None:
    text += f" [{number(interval[0])}, {number(interval[1])}]"
  text += f" {verdict.get('unit', '')}".rstrip()
  if interval is not None and verdict.get("level") is not None:
    text += f" ({100 * verdict['level']:g} %)"
  return text


def _seeds(verdict: Mapping[str, Any]) -> str:
  needed = verdict.get("seeds_needed")
  return f"{verdict['seeds']}" + (f" ({needed} needed)" if needed else "")


def _table(table: Mapping[str, Any]) -> str:
  """Returns a table of findings as Markdown."""
  columns = table["columns"]
  rows = [
    [
      number(value, column["digits"]) if _is_number(value) else _word(value)
      for column, value in zip(columns, row, strict=True)
    ]
    for row in table["rows"]
  ]
  heads = [
    c["label"] + (f" ({c['unit']})" if c["unit"] else "") for c in columns
  ]
  numbers = [
    i
    for i in range(len(columns))
    if all(row[i] is None or _is_number(row[i]) for row in table["rows"])
  ]
  return _markdown(heads, rows, numbers=numbers)


def _markdown(heads: Any, rows: Any, *, numbers: Any) -> str:
  """Returns a table; columns of numbers are aligned right."""
  rules = ["---:" if i in numbers else "---" for i in range(len(heads))]
  lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|"]
  lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
  return "\n".join(lines)


def _word(value: Any) -> str:
  """Returns a value that is no number for readers; nothing for none."""
  if isinstance(value, bool):
    return "yes" if value else "no"
  return "" if value is None else f"{value}"


def _cell(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ")


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: Any, digits: int | None = None) -> str:
  """Returns a number for readers; "none" without one."""
  if value is None:
    return "none"
  if digits is not None:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if not float(text) else text
  return f"{value:.3g}" if isinstance(value, float) else f"{value}"
