"""One table of what all studies found."""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from bitnet_jax.analysis.rules import EQUIVALENT, NOT_DECIDABLE
from bitnet_jax.files import local_path, write_atomically
from bitnet_jax.studies import page
from bitnet_jax.studies.study import FINDINGS_FILE

START, END = "<!-- table: verdicts -->", "<!-- end -->"
_SHORT = {NOT_DECIDABLE: "open", EQUIVALENT: "equivalent"}
_BLOCK = re.compile(f"{START}\n.*?{END}\n", re.DOTALL)


def table(root: str | os.PathLike[str], *, link: str = "") -> str:
  """Returns a Markdown table with a row for each study that has findings.

  Args:
    root: folder of the studies.
    link: what leads from the page of the table to that folder.

  Raises:
    ValueError: if no study has findings.
  """
  paths = sorted(local_path(root).glob(f"*/{FINDINGS_FILE}"))
  found = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8"))
    for path in paths
  }
  if not found:
    raise ValueError(f"{root} has no study with {FINDINGS_FILE}")
  lines = ["| study | runs | verdicts by claim |", "|---|---:|---|"]
  for slug in sorted(found, key=lambda slug: _place(found[slug])):
    data = found[slug]
    title = f"[{data['title']}]({link}{slug}/{page.PAGE_FILE})"
    lines.append(f"| {title} | {data['records']:,} | {_verdicts(data)} |")
  return "\n".join(lines)


def write(root: str | os.PathLike[str], readme: pathlib.Path) -> None:
  """Writes the table between the markers of a page beside that folder.

  Raises:
    ValueError: if the page does not have the markers.
  """
  text = readme.read_text(encoding="utf-8")
  block = f"{START}\n{table(root, link=f'{local_path(root).name}/')}\n{END}\n"
  if len(_BLOCK.findall(text)) != 1:
    raise ValueError(f"{readme} must have the lines {START} and {END} once")
  write_atomically(readme, _BLOCK.sub(lambda _: block, text))


def _place(data: Mapping[str, Any]) -> int:
  """Returns where a study comes: by its first claim of the papers."""
  return min((c for c in data["claims"] if isinstance(c, int)), default=999)


def _verdicts(data: Mapping[str, Any]) -> str:
  """Returns the verdicts on each claim: "7: open, holds; 8: does not hold"."""
  found: dict[Any, dict[str, int]] = {claim: {} for claim in data["claims"]}
  for verdict in data["verdicts"]:
    counts = found[verdict["claim"]]
    word = _SHORT.get(verdict["outcome"], verdict["outcome"])
    counts[word] = counts.get(word, 0) + 1
  return "; ".join(
    f"{claim}: "
    + ", ".join(
      f"{word} ({n})" if n > 1 else word for word, n in counts.items()
    )
    for claim, counts in found.items()
  )
