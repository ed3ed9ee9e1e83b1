"""Runs the cases of a study that have no record yet."""

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import tqdm

import bitnet_jax
from bitnet_jax.programs.sweeping import together
from bitnet_jax.studies import records
from bitnet_jax.studies.case import Case
from bitnet_jax.train import console, runner
from bitnet_jax.train.config import flags
from bitnet_jax.train.folder import records as run_records
from bitnet_jax.train.folder import workdir

Measure = Callable[[Mapping[str, Any], Any], Mapping[str, float]]
# What a run has that its config decides, not its results.
_BY_FOLDER = ("total_epochs", "data.source", "data.tokenizer", "data.data_dir")
_LISTED = 3  # failed cases in a message


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

  def add(self, case: Case, outcome: together.Outcome) -> None:
    """Adds the record of a run that ended or diverged."""
    result = outcome.result
    if result is None:
      result = _diverged(outcome)
    elif self.measure is not None:
      measured = self.measure(result["config"], outcome.variables)
      result = {**result, "metrics": {**result["metrics"], **measured}}
    record = records.describe(
      result,
      outcome.curves,
      outcome.layers,
      outcome.variables,
      curves=self.curves,
      case=case.name,
      cell=dict(case.cell),
      seed=case.seed,
      diverged=outcome.diverged,
      **self.named,
    )
    records.append(self.results, record)


def _diverged(outcome: together.Outcome) -> dict[str, Any]:
  """Returns the result of a run that diverged: all but its metrics."""
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
  return {
    "config": outcome.config,
    "run_id": outcome.run_id,
    "step": outcome.diverged,
    "versions": run_records.versions(),
    "device": run_records.device(),
    "date": now,
  }


def run_missing(
  cases: Mapping[str, Case],
  root: pathlib.Path,
  recorder: Recorder,
  *,
  workers: int = 1,
  overrides: Mapping[str, Any] | None = None,
  keeps_all: bool = False,
) -> None:
  """Runs the cases that have no record, and records them.

  Args:
    cases: by name, each after those that it starts from.
    root: folder of the runs that are kept: those that others start from.
    recorder: adds the records.
    workers: number of processes.
    overrides: values by dotted key for all cases.
    keeps_all: whether every run is kept, so that one that is stopped resumes.
      Each is then trained by a program of its own.

  Raises:
    ValueError: if a record is of another plan, or its case of another config.
    RuntimeError: if runs failed; names them, once the others have ended.
  """
  done = known(recorder.results, recorder.named["scale"])
  for name in cases.keys() & done.keys():
    check_same(cases[name], done[name], recorder.results)
  check_plan(done.values(), recorder.named["plan"], recorder.results)
  starts = {other for case in cases.values() for other in case.after.values()}
  failed: dict[str, str] = {}

  def end(outcome: together.Outcome) -> None:
    if outcome.result is None and outcome.diverged is None:
      failed[outcome.name] = f"{outcome.error}"
    elif outcome.name not in done:
      recorder.add(cases[outcome.name], outcome)
    # All outcomes are kept until the last one.
    outcome.variables, outcome.curves = {}, []

  for wave in _waves(cases, done, root):
    able = []
    for name, case in wave.items():
      if failed.keys() & {*case.after.values()}:
        failed[name] = "the run that it starts from failed"
        continue
      config = config_of(case, root, overrides)
      is_kept = keeps_all or name in starts
      folder = f"{root / name}" if is_kept else None
      able.append(together.Case(name=name, config=config, folder=folder))
    _train(able, workers, end)
  if failed:
    listed = "; ".join(f"{n}: {e}" for n, e in [*failed.items()][:_LISTED])
    raise RuntimeError(f"{len(failed)} runs failed: {listed}")


def _train(
  cases: Sequence[together.Case], workers: int, on_end: together.OnEnd
) -> None:
  """Trains cases, and shows how many have ended."""
  total, is_hidden = len(cases), not console.shows_text()
  with tqdm.tqdm(total=total, unit="run", disable=is_hidden) as bar:

    def end(outcome: together.Outcome) -> None:
      on_end(outcome)
      bar.update()

    together.train(cases, workers=workers, on_end=end)


def _waves(
  cases: Mapping[str, Case], done: Collection[str], root: pathlib.Path
) -> Iterator[dict[str, Case]]:
  """Yields the cases to run, each after the wave of those it starts from.

  A case with a record runs again if another one starts from it, and its folder
  is gone.
  """
  left = {name: case for name, case in cases.items() if name not in done}
  wanted = [other for case in left.values() for other in case.after.values()]
  while wanted:
    name = wanted.pop()
    if name not in left and not (root / name / workdir.RESULT_FILE).exists():
      left[name] = cases[name]
      wanted += cases[name].after.values()
  while left:
    wave = {
      n: c for n, c in left.items() if not left.keys() & {*c.after.values()}
    }
    yield wave
    for name in wave:
      del left[name]


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


def config_of(
  case: Case, root: pathlib.Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """Returns the config of a case; for arguments, see ``run_missing``."""
  folders = {key: f"{root / other}" for key, other in case.after.items()}
  values = {**case.values, **folders, **(overrides or {})}
  config = runner.load_config(case.config, values)
  flags.clear_other_length(config, values)
  return config


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
    value = json.loads(json.dumps(value))
    # Early records have rounded configs.
    if records.rounded(found) != records.rounded(value):
      raise ValueError(
        f"{results} has another run of the case {case.name}: {key} is {found!r}"
        f" there, {value!r} in the study; remove its record, or restore the"
        " study"
      )
