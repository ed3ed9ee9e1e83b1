"""``starts.jsonl``: when, where and by which command a run was started.

A run appends a line at each start, before its first step.
"""

import dataclasses
import datetime
import json
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from bitnet_jax.train.folder import bucket, records
from bitnet_jax.train.folder.lock import STARTS_FILE as STARTS_FILE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
  """How a run was requested; the defaults are those of a call in Python.

  Attributes:
    command: the command line.
    config_file: path or name of the config file.
    variant: its variant, after the colon.
    overrides: the keys that the command changed, with their values.
  """

  command: str | None = None
  config_file: str | None = None
  variant: str | None = None
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def describe(self) -> dict[str, Any]:
    """Returns its attributes with date (UTC) and host, as JSON."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found = {"date": now, "host": platform.node(), **dataclasses.asdict(self)}
    return json.loads(json.dumps(found))


# What ``describe`` adds to a record; it names files and hosts of a machine.
KEYS = ("date", "host", *(f.name for f in dataclasses.fields(Origin)))


def append(folder: pathlib.Path, origin: Origin, step: int) -> None:
  """Adds a start to the file of a run; ``step`` is where it begins."""
  records.append(folder / STARTS_FILE, {"step": step, **origin.describe()})
  bucket.send(folder)


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the starts of a run in order; none of an older or damaged one."""
  try:
    return records.load(folder / STARTS_FILE)
  except ValueError:
    return []
