"""Reads studies: findings, records and pages, in the folders that hold them."""

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bitnet_jax.config import base
from bitnet_jax.files import PathLike, local_path, read_json
from bitnet_jax.report import schema
from bitnet_jax.studies import page
from bitnet_jax.studies.study import FINDINGS_FILE

_BLOCK = re.compile(
  rf"{re.escape(page.START)}.*?(?:{re.escape(page.END)}|\Z)", re.DOTALL
)
_HEADING = re.compile(r"\A\s*#+ Remarks *\n")  # The page has one.
# Of older records: what is no part of their cells.
_OLDER = (
  *("run_id", "step", "config", "metrics", "num_params", "versions", "commit"),
  *("device", "wall_time_s", "epochs", "best", "date", "epoch_s", "case"),
  *("seed", "recipe"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """A record as the site shows it.

  Attributes:
    name: unique in its study.
    record: the record.
    file: name of its file, below the folder of studies.
    line: its line there, from 1.
    family: name of its model, or "".
    recipe: name of its recipe, or number format, or "".
    data: its data set, or "".
    metric: name of the metric that it is judged by, such as "valid/accuracy".
    mode: "max" or "min".
  """

  name: str
  record: Mapping[str, Any]
  file: str
  line: int
  family: str = ""
  recipe: str = ""
  data: str = ""
  metric: str = "valid/accuracy"
  mode: str = "max"

  @property
  def cell(self) -> Mapping[str, Any]:
    """What distinguishes it from others, without its seed."""
    return self.record["cell"]

  @property
  def has_diverged(self) -> bool:
    """Whether a metric became NaN or infinite."""
    return self.record.get("diverged") is not None


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
  runs = []
  for path in sorted(folder.glob("*.jsonl")):
    runs += _runs(path, notes)
  is_planned = page.PLAN_END in readme
  if not (runs or has_findings or is_planned):
    return None
  found = _findings(folder / FINDINGS_FILE) if has_findings else {}
  plan, _, rest = readme.partition(page.PLAN_END)
  return Study(
    slug=folder.name,
    title=found.get("title") or page.title(readme) or folder.name,
    runs=_unique(runs),
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


def _findings(path: pathlib.Path) -> dict[str, Any]:
  """Returns the findings of a study; a ValueError names what they lack."""
  found = read_json(path)
  lists = ("claims", "verdicts", "tables", "figures")
  for key in lists:
    if not isinstance(found.get(key, []), list):
      raise ValueError(f"{path}: {key} is no list")
  needed = {
    "verdicts": ("claim", "statement", "outcome"),
    "tables": ("name", "columns", "rows"),
    "figures": ("name", "kind", "series"),
  }
  for group, keys in needed.items():
    for i, item in enumerate(found.get(group, [])):
      for key in keys:
        if not isinstance(item, dict) or key not in item:
          raise ValueError(f"{path}: {group}.{i} lacks {key}")
  return found


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
    fault = _fault(record)
    if fault:
      notes.append(f"{where} is left out: {fault}")
      continue
    yield _describe(record, name, number)


def _fault(record: Mapping[str, Any]) -> str:
  """Returns why a record cannot be shown, or "".

  This takes microseconds, and ``schema.faults_of`` milliseconds.
  """
  found = record.get("schema", schema.SCHEMA)
  if found != schema.SCHEMA:
    return f"its schema is {found!r}, not {schema.SCHEMA!r}"
  if not isinstance(record.get("metrics"), dict):
    return "it has no metrics"
  groups = ("cell", "config", "curves", "layers", "versions")
  wrong = [k for k in groups if not isinstance(record.get(k) or {}, dict)]
  return f"{', '.join(wrong)} is no object" if wrong else ""


def _of_others(path: pathlib.Path, taken: set[str]) -> Study:
  """Returns the records in a file of others as a study."""
  stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-") or "records"
  slug, number = f"records-{stem}", 2
  while slug in taken:
    slug, number = f"records-{stem}-{number}", number + 1
  runs = [
    _describe(record, path.name, number)
    for number, record in schema.check_file(path)
  ]
  return Study(
    slug=slug,
    title=f"Records of {path.name}",
    runs=_unique(runs),
    kind="records",
  )


def _describe(record: Mapping[str, Any], file: str, line: int) -> Run:
  """Returns the run of a record, also of one without a schema."""
  record = _finite(record)
  config = record.get("config") or {}
  if "schema" not in record:
    cell = {k: v for k, v in record.items() if k not in _OLDER}
    scalars = (str, int, float, bool)
    cell = {k: v for k, v in cell.items() if isinstance(v, scalars)}
    seed = record.get("seed", config.get("seed"))
    record = {**record, "cell": cell, "seed": seed}
  record = {**record, "cell": record.get("cell") or {}}
  family, recipe, metric, mode = _kind(config)
  recipe = recipe or f"{record.get('recipe', '')}"
  source = (config.get("data") or {}).get("source")
  return Run(
    name=record.get("case") or _name(record, recipe),
    record=record,
    file=file,
    line=line,
    family=family,
    recipe=recipe,
    data="" if source is None else f"{source}",
    metric=metric,
    mode=mode,
  )


def _name(record: Mapping[str, Any], recipe: str) -> str:
  """Returns a name for a record without one."""
  parts = dict(record["cell"])
  if recipe:
    parts["recipe"] = recipe
  parts["seed"] = record.get("seed")
  return ",".join(f"{k}={v}" for k, v in parts.items() if v is not None)


def _kind(config: Mapping[str, Any]) -> tuple[str, str, str, str]:
  """Returns family, recipe, metric and mode of a config, complete or not."""
  names = [(config.get(group) or {}).get("name") for group in ("task", "model")]
  defaults = _defaults(*names)

  def look_up(group: str, key: str, otherwise: str) -> str:
    for values in (config, defaults):
      value = (values.get(group) or {}).get(key)
      if value is not None:
        return f"{value}"
    return otherwise

  recipe = look_up("quant", "recipe", "")
  if recipe == "float":
    recipe = look_up("model", "dtype", "float32")
  metric = look_up("checkpoint", "metric", "valid/accuracy")
  mode = look_up("checkpoint", "mode", "max")
  return f"{names[1] or ''}", recipe, metric, mode


@functools.cache
def _defaults(task: str | None, model: str | None) -> Mapping[str, Any]:
  """Returns the keys of a task and a model; none if they are unknown here."""
  if task is None or model is None:
    return {}
  try:
    return base(task, model).to_dict()
  except ValueError:
    return {}


def _finite(value: Any) -> Any:
  """Returns JSON with None for values that are NaN or infinite."""
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_finite(item) for item in value]
  return value


def _unique(runs: Sequence[Run]) -> list[Run]:
  """Returns runs with unique names: a second of one name gets "#2"."""
  seen: dict[str, int] = {}
  found = []
  for run in runs:
    count = seen[run.name] = seen.get(run.name, 0) + 1
    name = run.name if count == 1 else f"{run.name}#{count}"
    found.append(dataclasses.replace(run, name=name))
  return found


def as_text(value: Any) -> str:
  """Returns a value of a cell as the site shows it and as links name it."""
  if isinstance(value, str):
    return value
  if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
    return f"{int(value)}"
  return json.dumps(value, separators=(",", ":"))
