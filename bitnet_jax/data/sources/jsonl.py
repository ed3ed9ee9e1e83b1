"""Tables in files of JSON, one object per line."""

from bitnet_jax.data import splits
from bitnet_jax.data.sources import textfiles
from bitnet_jax.data.sources.tables import Records, Source
from bitnet_jax.files import parse_json


def read(pattern: str, cuts: splits.Cuts) -> Source:
  """Reads one JSONL file per split, without blank lines.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a line is not a JSON object; names it.
  """
  return textfiles.read_splits(pattern, cuts, _read)


def _read(file):
  """Reads the objects of one file."""
  records, places = [], []
  for number, line in enumerate(textfiles.lines(file), start=1):
    if not line or line.isspace():
      continue
    where = f"{file}, line {number}"
    try:
      values = parse_json(line)
      line.encode()
    except ValueError as error:
      raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(values, dict):
      raise ValueError(f"{where} is not an object but {line[:40]}")
    records.append(values)
    places.append(number)
  return Records(records=records, name=str(file), places=places)
