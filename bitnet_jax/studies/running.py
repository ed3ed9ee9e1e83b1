"""Runs the cases of a study that have no record yet."""

import datetime
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bitnet_jax.programs.sweeping import members
from bitnet_jax.studies import records
from bitnet_jax.studies.case import Case
from bitnet_jax.train import console, runner
from bitnet_jax.train.build import build
from bitnet_jax.train.config import flags
from bitnet_jax.train.folder import records as run_records
from bitnet_jax.train.folder import workdir
from bitnet_jax.train.folder.metrics import NonFiniteMetricError, read_metrics
from bitnet_jax.train.state import count_params

Measure = Callable[[Mapping[str, Any], Any], Mapping[str, float]]


def run_missing(
  cases: Mapping[str, Case],
  results: pathlib.Path,
  root: pathlib.Path,
  *,
  named: Mapping[str, Any],
  curves: Sequence[str] = records.CURVES,
  measure: Measure | None = None,
  workers: int = 1,
) -> None:
  """Runs the cases that have no record, and records them.

  Args:
    cases: by name, each after those that it starts from.
    results: file of the records.
    root: folder of the runs; a stopped run resumes.
    named: entries of all records: "study", "scale" and "plan".
    curves: see ``records.describe``.
    measure: see ``Study``.
    workers: number of processes.

  Raises:
    ValueError: for a case whose record has another config.
  """
  del workers
  done = {record["case"]: record for record in records.load(results)}
  for name, case in cases.items():
    if name in done:
      check_same(case, done[name], results)
  left = [case for name, case in cases.items() if name not in done]
  for number, case in enumerate(left, start=1):
    console.say(f"{case.name}: {number} of {len(left)} runs")
    for other in case.after.values():
      if not (root / other / workdir.RESULT_FILE).exists():
        _run(cases[other], root)
    result = _run(case, root)
    if measure is not None and result["diverged"] is None:
      variables = runner.load_model(root / case.name).variables
      measured = measure(result["config"], variables)
      result["metrics"] = {**result["metrics"], **measured}
    record = records.describe(
      result,
      _lines(root / case.name),
      curves=curves,
      case=case.name,
      cell=dict(case.cell),
      seed=case.seed,
      **named,
    )
    records.append(results, record)


def config_of(case: Case, root: pathlib.Path) -> dict[str, Any]:
  """Returns the config of a case."""
  folders = {key: f"{root / other}" for key, other in case.after.items()}
  values = case.values | folders
  config = runner.load_config(case.config, values)
  flags.clear_other_length(config, values)
  return config


def _run(case: Case, root: pathlib.Path) -> dict[str, Any]:
  """Trains a case; returns its result, without metrics if it diverged."""
  config, folder = config_of(case, root), root / case.name
  try:
    with console.showing("quiet"):
      return {"diverged": None, **members.run(config, folder)}
  except NonFiniteMetricError as error:
    return _diverged(config, error.step)


def _diverged(config: Mapping[str, Any], step: int) -> dict[str, Any]:
  """Returns the result of a run that diverged at a step."""
  experiment = build(config)
  state = experiment.abstract_state()
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
  return {
    "diverged": step,
    "config": experiment.config,
    "run_id": experiment.run_id,
    "step": step,
    "epochs": round(experiment.epochs(step), 3),
    "num_params": count_params(state.params),
    "versions": run_records.versions(),
    "commit": run_records.commit(),
    "device": run_records.device(),
    "date": now,
  }


def _lines(folder: pathlib.Path) -> list[dict[str, Any]]:
  return read_metrics(folder) if folder.exists() else []


def check_same(
  case: Case, record: Mapping[str, Any], results: pathlib.Path
) -> None:
  """Checks that a record is that of a case, by the keys that the case sets.

  Raises:
    ValueError: naming the case and the first key that differs.
  """
  config = records.expand(record["config"])
  for key, value in case.overrides.items():
    if key in ("total_epochs", "data.source", "data.tokenizer"):
      continue  # A run has its length in steps, and a record has no folders.
    found = run_records.look_up(config, key)
    value = list(value) if isinstance(value, tuple) else value
    if found != value:
      raise ValueError(
        f"{results} has another run of the case {case.name}: {key} is {found!r}"
        f" there, {value!r} in the study; remove its record, or restore the"
        " study"
      )
