"""The schema of records, and checks of records that others send."""

import functools
import importlib.resources
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from bitnet_jax.extras import needed_by
from bitnet_jax.files import (
  PathLike,
  local_path,
  parse_json,
  read_bytes,
  read_json,
)
from bitnet_jax.studies.records import SCHEMA
from bitnet_jax.train.folder.records import LARGEST_RECORDS

SCHEMA_FILE = "record.schema.json"
FINDINGS_SCHEMA_FILE = "findings.schema.json"
_MOST_ERRORS = 20  # that a message lists
_MOST_CODES_OFF = 0.01  # how far the fractions of a layer may miss a sum of 1


class RecordError(ValueError):
  """Records do not fit the schema."""


def schema_text(file: str = SCHEMA_FILE) -> str:
  """Returns a JSON Schema: that of a record, or of findings."""
  folder = importlib.resources.files("bitnet_jax.report")
  return (folder / file).read_text(encoding="utf-8")


@functools.cache
def _validator(file: str) -> Any:
  with needed_by("checking records", "jsonschema", extra="report"):
    import jsonschema
  return jsonschema.Draft202012Validator(json.loads(schema_text(file)))


def check_file(path: PathLike) -> list[tuple[int, dict[str, Any]]]:
  """Returns the records of a file of JSON lines, all of which fit the schema.

  Args:
    path: the file; empty lines are skipped.

  Returns:
    Pairs of line number and record.

  Raises:
    FileNotFoundError: if the file does not exist.
    RecordError: for records that do not fit; each line of the message names
      file, line number and key. Also for a file without records.
  """
  path = local_path(path)
  found, errors = [], []
  for number, line in lines_of(path):
    try:
      record = parse_record(line)
    except ValueError as error:
      errors.append(f"{path}, line {number}: it is no record: {error}")
      continue
    faults = list(faults_of(record))
    errors += [f"{path}, line {number}, {fault}" for fault in faults]
    if not faults:
      found.append((number, record))
  if errors:
    more = len(errors) - _MOST_ERRORS
    listed = errors[:_MOST_ERRORS] + ([f"and {more} more"] if more > 0 else [])
    raise RecordError("\n".join(listed))
  if not found:
    raise RecordError(f"{path} holds no record")
  return found


def lines_of(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
  """Yields number and content of each line that is not empty."""
  data = read_bytes(path, most=LARGEST_RECORDS)
  for number, line in enumerate(data.split(b"\n"), start=1):
    if line.strip():
      yield number, line


def parse_record(line: bytes) -> dict[str, Any]:
  """Returns the object in a line.

  Raises:
    ValueError: if there is none.
  """
  record = parse_json(line.decode("utf-8"))
  if not isinstance(record, dict):
    raise ValueError("it is no object")
  return record


def faults_of(record: Mapping[str, Any]) -> Iterator[str]:
  """Yields what is wrong with a record: "key metrics.loss: ...".

  A record of another schema has this one fault.
  """
  if record.get("schema", SCHEMA) != SCHEMA:
    yield f"key schema: it is {record['schema']!r}, not {SCHEMA!r}"
    return
  faults = _faults_by(SCHEMA_FILE, record)
  yield from faults
  for key in _not_finite(record, ""):
    yield f"key {key}: it is not a finite number"
  if not faults:
    yield from _contradictions(record)


def check_findings(path: pathlib.Path) -> dict[str, Any]:
  """Returns the content of ``findings.json``.

  Raises:
    ValueError: if it is damaged; names file and key.
  """
  found = read_json(path)
  faults = _faults_by(FINDINGS_SCHEMA_FILE, found)
  if not faults:
    faults = [
      f"key tables.{i}.rows.{j}: it has {len(row)} values for"
      f" {len(table['columns'])} columns"
      for i, table in enumerate(found.get("tables", ()))
      for j, row in enumerate(table["rows"])
      if len(row) != len(table["columns"])
    ]
  if faults:
    raise ValueError(f"{path}, {faults[0]}")
  return found


def _faults_by(file: str, value: Mapping[str, Any]) -> list[str]:
  """Returns where a value does not fit a schema."""
  found = _validator(file).iter_errors(value)
  return [_named(fault) for fault in sorted(found, key=lambda e: e.json_path)]


def _named(fault: Any) -> str:
  """Returns a fault that ``jsonschema`` found, with the dotted key."""
  parts = [f"{part}" for part in fault.absolute_path]
  message = fault.message
  if fault.validator == "required":
    (key,) = [k for k in fault.validator_value if f"{k!r} is" in message]
    parts, message = [*parts, key], "it is missing"
  if len(message) > 200:
    message = f"{message[:80]} ... {message[-100:]}"
  return f"key {'.'.join(parts)}: {message}" if parts else message


def _not_finite(value: Any, key: str) -> Iterator[str]:
  """Yields the dotted keys of values that are NaN or infinite."""
  if isinstance(value, float) and not math.isfinite(value):
    yield key
  elif isinstance(value, dict):
    for name, item in value.items():
      yield from _not_finite(item, f"{key}.{name}" if key else name)
  elif isinstance(value, list):
    for i, item in enumerate(value):
      yield from _not_finite(item, f"{key}.{i}")


def _contradictions(record: Mapping[str, Any]) -> Iterator[str]:
  """Yields what a schema cannot say of a record."""
  curves = record.get("curves", {})
  if curves and "step" not in curves:
    yield "key curves.step: it is missing"
  lengths = {name: len(values) for name, values in curves.items()}
  for name, length in lengths.items():
    if length != lengths.get("step", length):
      yield (
        f"key curves.{name}: it has {length} values, not"
        f" {lengths['step']} as curves.step"
      )
  for path, codes in record.get("layers", {}).items():
    total = sum(codes[key] for key in ("zeros", "negative", "positive"))
    if abs(total - 1) > _MOST_CODES_OFF:
      yield f"key layers.{path}: its fractions sum to {total:.4g}, not 1"
  if not record["metrics"] and record.get("diverged") is None:
    yield "key metrics: it is empty, though the run did not diverge"
