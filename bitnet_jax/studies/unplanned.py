"""Studies without a plan: named runs, whose whole results are recorded.

Studies of claims are ``study.Study`` instead.
"""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bitnet_jax.files import PathLike, local_path
from bitnet_jax.programs.sweeping import members
from bitnet_jax.studies import records
from bitnet_jax.train import runner
from bitnet_jax.train.folder import starts

RECIPES = ("float", "b158", "b158_median")


class Case(NamedTuple):
  """One run of a study.

  Attributes:
    name: name of its folder and its record.
    config: config file, optionally with ":VARIANT".
    overrides: values by dotted key.
  """

  name: str
  config: str
  overrides: Mapping[str, Any]


def run_missing(
  cases: Iterable[Case], results: PathLike, root: PathLike
) -> None:
  """Runs the cases that have no record yet, and records them.

  Args:
    cases: the cases, in the order to run.
    results: file of JSON lines.
    root: folder of the runs; a stopped run resumes.
  """
  results = local_path(results)
  root = local_path(root)
  for case in cases:
    if any(record.get("case") == case.name for record in records.load(results)):
      continue
    config = runner.load_config(case.config, dict(case.overrides))
    result = members.run(config, root / case.name)
    result = {k: v for k, v in result.items() if k not in starts.KEYS}
    config = records.unplaced(result["config"])
    records.append(results, {**result, "config": config, "case": case.name})


def percent(values: Iterable[float]) -> str:
  """Formats fractions in percent: the mean of several with their range."""
  found = [100 * value for value in values]
  text = f"{statistics.mean(found):.2f} %"
  if len(found) > 1:
    text += f" ({min(found):.2f} to {max(found):.2f})"
  return text
