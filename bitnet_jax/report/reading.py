"""Reads studies: findings, records and pages, in the folders that hold them."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bitnet_jax.files import PathLike, local_path
from bitnet_jax.report import runs, schema
from bitnet_jax.report.runs import Run
from bitnet_jax.studies import page
from bitnet_jax.studies.study import FINDINGS_FILE

_BLOCK = re.compile(
  rf"{re.escape(page.START)}.*?(?:{re.escape(page.END)}|\Z)", re.DOTALL
)
_HEADING = re.compile(r"\A\s*#+ Remarks *\n")  # The page has one.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """A study as its folder shows it.

  Attributes:
    slug: name of its folder.
    title: the question.
    runs: its runs, in the order of their files.
    claims: numbers of claims, or names of claims of others.
    verdicts: as in ``findings.json``; likewise ``tables`` and ``figures``.
    scale: scale of the findings.
    plan: Markdown of the plan, or of the whole page of an older study.
    remarks: Markdown of what follows the findings.
    kind: "study", "older" (without findings) or "records" (of others).
  """

  slug: str
  title: str
  runs: Sequence[Run] = ()
  claims: Sequence[Any] = ()
  verdicts: Sequence[Mapping[str, Any]] = ()
  tables: Sequence[Mapping[str, Any]] = ()
  figures: Sequence[Mapping[str, Any]] = ()
  scale: str = ""
  plan: str = ""
  remarks: str = ""
  kind: str = "study"

  def distinct(self, name: str) -> list[str]:
    """Returns the values of an attribute of its runs, sorted, without ""."""
    return sorted({getattr(run, name) for run in self.runs} - {""})


@dataclasses.dataclass(frozen=True)
class Found:
  """What a folder of studies holds.

  Attributes:
    studies: in the order of their claims; older ones last.
    notes: lines on what could not be read as it is.
  """

  studies: Sequence[Study]
  notes: Sequence[str]


def find(root: PathLike, others: Sequence[PathLike] = ()) -> Found:
  """Reads all studies below a folder, and files of records of others.

  Args:
    root: folder with one folder a study.
    others: files of records, each of which is checked by the schema.

  Raises:
    FileNotFoundError: if a folder or file does not exist.
    RecordError: for records of others that do not fit the schema.
    ValueError: if there is no study, or a file of one is damaged; names file
      and line. A last line that is cut off is left out, with a note.
  """
  root = local_path(root)
  if not root.is_dir():
    raise FileNotFoundError(f"{root} is no folder; name one that holds studies")
  notes: list[str] = []
  studies = []
  for folder in sorted(root.iterdir()):
    if folder.is_dir() and not folder.name.startswith("."):
      study = _read(folder, notes)
      studies += [] if study is None else [study]
  taken = {study.slug for study in studies}
  for path in map(local_path, others):
    studies.append(_of_others(path, taken))
    taken.add(studies[-1].slug)
  if not studies:
    raise ValueError(
      f"{root} holds no study: none of its folders has {FINDINGS_FILE}, records"
      f" (*.jsonl) or a plan ({page.PAGE_FILE} with the line {page.PLAN_END})"
    )
  return Found(sorted(studies, key=_place), notes)


def _place(study: Study) -> tuple[Any, ...]:
  """Returns where a study comes: by claim; older ones and others last."""
  kinds = ("study", "records", "older")
  numbers = [claim for claim in study.claims if isinstance(claim, int)]
  return (kinds.index(study.kind), min(numbers, default=999), study.slug)


def _read(folder: pathlib.Path, notes: list[str]) -> Study | None:
  """Returns the study in a folder, if there is one."""
  readme = _text(folder / page.PAGE_FILE)
  has_findings = (folder / FINDINGS_FILE).is_file()
  found_runs = []
  for path in sorted(folder.glob("*.jsonl")):
    found_runs += _runs(path, notes)
  is_planned = page.PLAN_END in readme
  if not (found_runs or has_findings or is_planned):
    return None
  found = schema.check_findings(folder / FINDINGS_FILE) if has_findings else {}
  plan, _, rest = readme.partition(page.PLAN_END)
  return Study(
    slug=folder.name,
    title=found.get("title") or page.title(readme) or folder.name,
    runs=runs.unique(found_runs),
    claims=found.get("claims") or (_claims(readme) if is_planned else ()),
    verdicts=found.get("verdicts", ()),
    tables=found.get("tables", ()),
    figures=found.get("figures", ()),
    scale=found.get("scale") or "",
    plan=plan,
    remarks=_HEADING.sub("", _BLOCK.sub("", rest)),
    kind="study" if has_findings or is_planned else "older",
  )


def _claims(readme: str) -> list[int | str]:
  """Returns the claims that a plan names; none if it does not yet."""
  try:
    return page.claims(readme)
  except ValueError:
    return []


def _text(path: pathlib.Path) -> str:
  return path.read_text(encoding="utf-8") if path.is_file() else ""


def _runs(path: pathlib.Path, notes: list[str]) -> Iterator[Run]:
  """Yields the runs in a file of a study."""
  name = f"{path.parent.name}/{path.name}"
  lines = list(schema.lines_of(path))
  for number, line in lines:
    where = f"{name}, line {number}"
    try:
      record = schema.parse_record(line)
    except ValueError as error:
      if number == lines[-1][0]:
        notes.append(f"{where} is cut off and left out: {error}")
        return
      raise ValueError(f"{path}, line {number}: {error}") from error
    fault = runs.fault_of(record)
    if fault:
      notes.append(f"{where} is left out: {fault}")
      continue
    yield runs.describe(record, name, number)


def _of_others(path: pathlib.Path, taken: set[str]) -> Study:
  """Returns the records in a file of others as a study."""
  stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-") or "records"
  slug, number = f"records-{stem}", 2
  while slug in taken:
    slug, number = f"records-{stem}-{number}", number + 1
  of_file = [
    runs.describe(record, path.name, number)
    for number, record in schema.check_file(path)
  ]
  return Study(
    slug=slug,
    title=f"Records of {path.name}",
    runs=runs.unique(of_file),
    kind="records",
  )
