"""Compiles the steps of a study ahead of time, for chips that are absent."""

import json
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from bitnet_jax.analysis.chips import GIB
from bitnet_jax.programs import ahead
from bitnet_jax.studies import running
from bitnet_jax.studies.case import Case

# Parts of a config that decide shapes and dtypes of a step.
_SHAPES = ("task", "data", "model", "quant", "mesh")
HEADER = (
  "| case | parameters (GiB) | memory of a chip (GiB) | of (GiB) |"
  " int8 products | seconds |\n|---|---:|---:|---:|---:|---:|"
)


def steps(
  cases: Mapping[str, Case], root: pathlib.Path
) -> dict[str, dict[str, Any]]:
  """Returns a config for each train step that differs in shapes or dtypes.

  Rates, decays, seeds, lengths and times of a switch make no other step.

  Args:
    cases: by name.
    root: folder of the runs that others start from. It is not read.

  Returns:
    Nested dicts by the name of the first case with this step.
  """
  found: dict[str, dict[str, Any]] = {}
  known = set()
  for name, case in cases.items():
    config = running.config_of(case, root) | {"init_from": None}
    parts = {part: dict(config[part]) for part in _SHAPES}
    del parts["quant"]["phase_in"]
    text = json.dumps(parts, sort_keys=True, default=str)
    if text not in known:
      known.add(text)
      found[name] = config
  return found


def rows(
  configs: Mapping[str, Mapping[str, Any]], devices: Any
) -> Iterator[str]:
  """Compiles steps; yields a row of the table ``HEADER`` for each.

  A step that does not fit, or whose data are absent, has a row that says so.

  Args:
    configs: see ``steps``.
    devices: see ``ahead.get_topology``.
  """
  for name, config in configs.items():
    began = time.monotonic()
    try:
      report = ahead.compile_step(config, devices)
    except (ValueError, OSError) as error:
      problem = f"{error}".splitlines()[0]
      yield f"| {name} | {problem} | | | | |"
      continue
    available = f"{report.available / GIB:.0f}" if report.available else ""
    int8, products = report.int8_products
    yield (
      f"| {name} | {report.memory['parameters'] / GIB:.3f} |"
      f" {report.peak / GIB:.3f} | {available} | {int8} of {products} |"
      f" {time.monotonic() - began:.0f} |"
    )
