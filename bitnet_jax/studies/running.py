"""Runs the cases of a study that have no record yet."""

import dataclasses
import datetime
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import bitnet_jax
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
# What a run has that its config decides, not its results.
_BY_FOLDER = ("total_epochs", "data.source", "data.tokenizer", "data.data_dir")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorder:
  """Adds the record of each run to a file.

  Attributes:
    results: the file.
    named: entries of all records: "study", "scale", "plan" and "commit".
    curves: see ``records.describe``.
    measure: see ``Study``.
  """

  results: pathlib.Path
  named: Mapping[str, Any]
  curves: Sequence[str] = records.CURVES
  measure: Measure | None = None

  def add(self, case: Case, outcome: "Outcome") -> None:
    """Adds the record of a run that ended."""
    result = dict(outcome.result)
    if self.measure is not None and outcome.diverged is None:
      measured = self.measure(result["config"], outcome.variables)
      result["metrics"] = {**result["metrics"], **measured}
    record = records.describe(
      result,
      outcome.curves,
      outcome.variables,
      curves=self.curves,
      case=case.name,
      cell=dict(case.cell),
      seed=case.seed,
      diverged=outcome.diverged,
      **self.named,
    )
    records.append(self.results, record)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """How a run ended.

  Attributes:
    result: the content of ``result.json``; without metrics if it diverged.
    curves: the lines of ``metrics.jsonl``.
    variables: the last variables, ``None`` if it diverged.
    diverged: the step at which a metric became NaN or infinite, if any.
  """

  result: Mapping[str, Any]
  curves: Sequence[Mapping[str, Any]]
  variables: Any
  diverged: int | None


def run_missing(
  cases: Mapping[str, Case], root: pathlib.Path, recorder: Recorder
) -> None:
  """Runs the cases that have no record, and records them.

  Args:
    cases: by name, each after those that it starts from.
    root: folder of the runs; a stopped run resumes.
    recorder: adds the records.

  Raises:
    ValueError: if a record is of another plan, or its case of another config.
  """
  done = known(recorder.results, recorder.named["scale"])
  for name in cases.keys() & done.keys():
    check_same(cases[name], done[name], recorder.results)
  check_plan(done.values(), recorder.named["plan"], recorder.results)
  left = [case for name, case in cases.items() if name not in done]
  for number, case in enumerate(left, start=1):
    console.say(f"{case.name}: {number} of {len(left)} runs")
    for other in case.after.values():
      if not (root / other / workdir.RESULT_FILE).exists():
        _run(cases[other], root)
    recorder.add(case, _run(case, root))


def known(results: pathlib.Path, scale: str) -> dict[str, dict[str, Any]]:
  """Returns the records of a scale by the names of their cases."""
  found = records.load(results)
  return {
    record["case"]: record for record in found if record["scale"] == scale
  }


def commit_of(file: pathlib.Path) -> str | None:
  """Returns the commit of the code that a study runs, see ``records.commit``.

  Args:
    file: its ``run.py``. Changes of its records and findings do not count.
  """
  package = pathlib.Path(bitnet_jax.__file__).parent
  return run_records.commit(of=[package, package.parent / "configs", file])


def config_of(case: Case, root: pathlib.Path) -> dict[str, Any]:
  """Returns the config of a case."""
  folders = {key: f"{root / other}" for key, other in case.after.items()}
  values = case.values | folders
  config = runner.load_config(case.config, values)
  flags.clear_other_length(config, values)
  return config


def _run(case: Case, root: pathlib.Path) -> Outcome:
  """Trains a case."""
  config, folder = config_of(case, root), root / case.name
  diverged = variables = None
  try:
    with console.showing("quiet"):
      result = members.run(config, folder)
    variables = runner.load_model(folder).variables
  except NonFiniteMetricError as error:
    diverged = error.step
    result = _diverged(config, diverged)
  lines = read_metrics(folder) if folder.exists() else []
  return Outcome(
    result=result, curves=lines, variables=variables, diverged=diverged
  )


def _diverged(config: Mapping[str, Any], step: int) -> dict[str, Any]:
  """Returns the result of a run that diverged at a step."""
  experiment = build(config)
  state = experiment.abstract_state()
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
  return {
    "config": experiment.config,
    "run_id": experiment.run_id,
    "step": step,
    "epochs": round(experiment.epochs(step), 3),
    "num_params": count_params(state.params),
    "versions": run_records.versions(),
    "device": run_records.device(),
    "date": now,
  }


def check_plan(
  found: Collection[Mapping[str, Any]], plan: str, results: pathlib.Path
) -> None:
  """Checks that records have the stamp of a plan.

  Raises:
    ValueError: if the plan changed after the first record.
  """
  others = [record for record in found if record["plan"] != plan]
  if others:
    raise ValueError(
      f"the plan is {plan}, but {len(others)} of {len(found)} records in"
      f" {results} are of the plan {others[0]['plan']}; restore the plan, or"
      " remove these records"
    )


def check_same(
  case: Case, record: Mapping[str, Any], results: pathlib.Path
) -> None:
  """Checks that a record is that of a case, by the keys that the case sets.

  Raises:
    ValueError: naming the case and the first key that differs.
  """
  config = records.expand(record["config"])
  for key, value in case.values.items():
    if key in _BY_FOLDER:
      continue
    found = run_records.look_up(config, key)
    value = list(value) if isinstance(value, tuple) else value
    if found != value:
      raise ValueError(
        f"{results} has another run of the case {case.name}: {key} is {found!r}"
        f" there, {value!r} in the study; remove its record, or restore the"
        " study"
      )
