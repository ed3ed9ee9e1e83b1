"""Lists the run folders below a folder, newest first."""

import datetime
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from bitnet_jax.files import PathLike, local_path
from bitnet_jax.train.folder import listing
from bitnet_jax.train.summary import size

_COLUMNS = {
  "run": "name",
  "config": "config",
  "recipe": "recipe",
  "seed": "seed",
  "step": "progress",
  "state": "state",
  "best": "shown",
  "date": "date",
  "size": "bytes",
}


def list_runs(root: PathLike) -> list[dict[str, Any]]:
  """Returns what is known of each run below a folder, newest first.

  Args:
    root: the folder; a run folder lists itself.

  Returns:
    By run: "name" (its path below ``root``), "state" (see ``listing.STATES``),
    "config", "task", "model", "recipe", "seed", "step", "total_steps",
    "metric", "best", "date" (of its last file, in UTC), "bytes" and "damage".

  Raises:
    FileNotFoundError: if there is no such folder.
  """
  root = local_path(root)
  found = [(listing.seconds_of(path), path) for path in listing.find(root)]
  found.sort(key=lambda item: (-item[0], item[1]))
  return [describe(root, path, seconds) for seconds, path in found]


def describe(
  root: pathlib.Path, folder: pathlib.Path, seconds: float
) -> dict[str, Any]:
  """Returns an entry of ``list_runs``.

  Args:
    root: the folder that is listed.
    folder: a run folder in it.
    seconds: when the run last wrote, see ``listing.seconds_of``.
  """
  run = listing.read(folder)
  date = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
  found: dict[str, Any] = {
    "name": f"{folder.relative_to(root)}" if folder != root else folder.name,
    "state": run.state,
    **dict.fromkeys(("config", "task", "model", "recipe", "seed")),
    "step": run.step,
    **dict.fromkeys(("total_steps", "metric", "best")),
    "date": date.isoformat(timespec="seconds"),
    "bytes": listing.bytes_of(folder),
    "damage": run.damage,
  }
  if run.state == "damaged":
    return found
  config = run.config
  try:
    best = listing.best_value(run)
  except ValueError as error:
    return {**found, "state": "damaged", "damage": f"{error}"}
  return {
    **found,
    "config": run.starts[-1].get("config_file") if run.starts else None,
    "task": config["task"]["name"],
    "model": config["model"]["name"],
    "recipe": config["quant"]["recipe"],
    "seed": config["seed"],
    "total_steps": config["total_steps"],
    "metric": config["checkpoint"]["metric"],
    "best": best,
  }


def table(runs: Sequence[Mapping[str, Any]]) -> str:
  """Returns the runs as a table in plain text, one line each."""
  rows = [list(_COLUMNS), *map(_row, runs)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = (
    "  ".join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    )
    for row in rows
  )
  return "\n".join(line.rstrip() for line in lines)


def _row(run: Mapping[str, Any]) -> list[str]:
  """Returns the cells of a run."""
  name = run["config"] or f"{run['task'] or '?'}, {run['model'] or '?'}"
  best = "" if run["best"] is None else f"{run['metric']} {run['best']:.4g}"
  total = "?" if run["total_steps"] is None else run["total_steps"]
  shown = {
    **run,
    "config": pathlib.PurePath(name).name,
    "progress": f"{run['step']}/{total}",
    "shown": best,
    "date": run["date"][:16].replace("T", " "),
    "bytes": size(run["bytes"]),
  }
  cells = [shown[key] for key in _COLUMNS.values()]
  return ["" if cell is None else f"{cell}" for cell in cells]
