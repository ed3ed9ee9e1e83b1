"""Studies: cases to run, and what their records say about a claim."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from bitnet_jax import choices
from bitnet_jax.files import local_path, write_atomically
from bitnet_jax.programs import ahead
from bitnet_jax.programs.sweeping.folder import locked
from bitnet_jax.studies import again as compared
from bitnet_jax.studies import (
  compiled,
  drawing,
  findings,
  page,
  records,
  running,
)
from bitnet_jax.studies.case import Case, by_name
from bitnet_jax.studies.findings import Findings
from bitnet_jax.studies.runs import Runs
from bitnet_jax.train import console

SCALES = ("ci", "cpu", "paper")
COMMITTED = "cpu"  # the scale whose records stand beside ``run.py``
FINDINGS_FILE = "findings.json"
FINDINGS_PAGE = "findings.md"
DATA_VARIABLE = "BITNET_JAX_DATA"
_NO_DATA = "DATA"  # stands for the folder of data sets if none is given
_LISTED = 4  # names of cases in a message


@dataclasses.dataclass(frozen=True)
class Study:
  """A study in a folder with its plan.

  Attributes:
    file: path of its ``run.py``.
    cases: returns the runs of a scale, with data sets in a folder.
    findings: returns what the runs of a scale say.
    curves: patterns of the metrics whose curves the records keep.
    measure: returns further metrics of a run that did not diverge, from its
      resolved config and its last variables.
    others: whether findings at the scale ``COMMITTED`` also read the records of
      all other studies beside its folder. It then needs no cases there.
  """

  file: str
  cases: Callable[[str, str], Iterable[Case]]
  findings: Callable[[Runs], Findings]
  curves: Sequence[str] = records.CURVES
  measure: running.Measure | None = None
  others: bool = False

  @property
  def folder(self) -> pathlib.Path:
    """The folder of the study."""
    return pathlib.Path(self.file).absolute().parent

  @property
  def name(self) -> str:
    """The name of its folder."""
    return self.folder.name

  @property
  def main(self) -> Callable[[list[str]], None]:
    """The program of the study. Reading this defines its flags."""
    _define_flags()
    program = functools.partial(_main, self)
    # ``--help`` shows the docstring of run.py with these flags.
    program.__module__ = "__main__"
    return program

  def cases_of(
    self, scale: str, data: str | None = None, only: str = ""
  ) -> dict[str, Case]:
    """Returns the cases of a scale by name, each after those it starts from.

    Args:
      scale: one of ``SCALES``.
      data: folder of data sets.
      only: a part of the names of the cases that are wanted.

    Raises:
      ValueError: for an unknown scale, or if ``only`` is in no name.
    """
    choices.check(scale, SCALES, key="--scale")
    cases = by_name(self.cases(scale, data or _NO_DATA))
    names = [name for name in cases if only in name]
    if not names and (only or not self.others):
      listed = ", ".join([*cases][:_LISTED]) + ", ..."
      raise ValueError(
        f"--only={only} is a part of no case of the scale {scale!r}; its"
        f" {len(cases)} cases are: {listed}"
      )
    kept: dict[str, Case] = {}
    for name in names:
      _add(name, cases, kept)
    return kept

  def run(
    self,
    *,
    scale: str,
    workdir: str | os.PathLike[str],
    data: str | None = None,
    only: str = "",
    workers: int = 1,
    again: bool = False,
  ) -> bool:
    """Runs the cases that have no record; draws findings once all have one.

    Args:
      scale: one of ``SCALES``.
      workdir: folder of the runs.
      data: folder of data sets.
      only: see ``cases_of``.
      workers: number of processes.
      again: whether records and findings are new ones in ``workdir``; once all
        are there, prints how they compare with the committed findings.

    Returns:
      Whether all effects that were found again agree, see ``again.Pair``.

    Raises:
      ValueError: for a mistake in an argument, and in a file of records.
    """
    if again and scale != COMMITTED:
      raise ValueError(
        f"--again needs --scale={COMMITTED}: there are no committed findings of"
        f" --scale={scale}"
      )
    if again and not (self.folder / FINDINGS_FILE).exists():
      raise ValueError(
        f"--again: there is no {self.folder / FINDINGS_FILE} to compare with"
      )
    if workers < 1:
      raise ValueError(f"--workers={workers}: it must be at least 1")
    cases = self.cases_of(scale, data, only)
    _check_data(cases.values(), data)
    root = local_path(workdir)
    place = root if again else self.place(scale, root)
    recorder = running.Recorder(
      results=place / records.RESULTS_FILE,
      named={
        "study": self.name,
        "scale": scale,
        "plan": page.stamp(self.page()),
        "commit": running.commit_of(pathlib.Path(self.file)),
      },
      curves=self.curves,
      measure=self.measure,
    )
    with locked(root):
      running.run_missing(
        cases,
        root,
        recorder,
        workers=workers,
        # Tests have several devices, on which no program is shared.
        overrides={"mesh.data": 1} if scale == "ci" else None,
        keeps_all=scale == "paper",
      )
    done = running.known(recorder.results, scale)
    left = [name for name in self.cases_of(scale, data) if name not in done]
    if left:
      console.say(f"{len(left)} cases have no record yet; nothing is drawn")
      return True
    self._write(scale, place)
    return not again or self._agrees(place)

  def _agrees(self, place: pathlib.Path) -> bool:
    """Prints and returns whether the findings in a folder are the committed."""
    both = (
      json.loads((folder / FINDINGS_FILE).read_text(encoding="utf-8"))
      for folder in (self.folder, place)
    )
    found = [*compared.pairs(*both)]
    print(compared.table(found))
    return all(pair.is_within for pair in found)

  def compile(
    self, topology: str, *, scale: str, data: str | None = None, only: str = ""
  ) -> None:
    """Compiles each different train step of a scale; prints a table.

    Args:
      topology: see ``ahead.get_topology``.
      scale: one of ``SCALES``.
      data: folder of data sets.
      only: see ``cases_of``.

    Raises:
      ValueError: for a mistake in an argument.
    """
    configs = compiled.steps(self.cases_of(scale, data, only), self.folder)
    devices = ahead.get_topology(topology)
    print(compiled.HEADER, flush=True)
    for row in compiled.rows(configs, devices):
      print(row, flush=True)

  def page(self) -> str:
    """Returns the text of its README, see ``page.read``."""
    return page.read(self.folder / page.PAGE_FILE)

  def place(self, scale: str, workdir: pathlib.Path | None) -> pathlib.Path:
    """Returns the folder of records and findings of a scale.

    Raises:
      ValueError: if it is the folder of the runs, and that is not given.
    """
    if scale == COMMITTED:
      return self.folder
    if workdir is None:
      raise ValueError(
        f"--workdir is required: it has the records of --scale={scale}"
      )
    return workdir

  def draw(
    self, *, scale: str, workdir: str | os.PathLike[str] | None = None
  ) -> None:
    """Writes the findings: ``findings.json``, figures, and the README's block.

    For other scales than ``COMMITTED``, they are written to ``workdir``, with
    ``findings.md`` in place of the README.
    """
    choices.check(scale, SCALES, key="--scale")
    root = None if workdir is None else local_path(workdir)
    self._write(scale, self.place(scale, root))

  def _write(self, scale: str, place: pathlib.Path) -> None:
    """Writes the findings of the records in a folder."""
    data = self.found(scale, place)
    for name, text in self.drawn(data, place).items():
      write_atomically(place / name, text)
      console.say(f"{place / name}")

  def found(self, scale: str, place: pathlib.Path) -> dict[str, Any]:
    """Returns what the records in a folder say: the content of findings.json.

    Raises:
      ValueError: if there are no records of the scale, or if the plan changed
        after the first of them.
    """
    results = place / records.RESULTS_FILE
    plan = page.stamp(self.page())
    running.check_plan(running.known(results, scale).values(), plan, results)
    runs = Runs.of(self._records(results, scale), scale)
    if not len(runs):
      raise ValueError(f"{results} has no records of --scale={scale}")
    return self.findings(runs).data(
      study=self.name,
      title=page.title(self.page()),
      scale=scale,
      records=len(runs),
    )

  def drawn(
    self, data: Mapping[str, Any], place: pathlib.Path
  ) -> dict[str, str]:
    """Returns the texts of the files that show findings in a folder, by name.

    Args:
      data: see ``found``.
      place: the folder.
    """
    block = page.block(data)
    texts = {FINDINGS_FILE: findings.text(data)}
    if place == self.folder:
      texts[page.PAGE_FILE] = page.with_findings(self.page(), block)
    else:
      texts[FINDINGS_PAGE] = block
    return texts | {
      f"{figure['name']}.svg": drawing.svg(figure) for figure in data["figures"]
    }

  def _records(self, results: pathlib.Path, scale: str) -> list[dict[str, Any]]:
    """Returns the records that findings read."""
    found = [*records.load(results)]
    if self.others and scale == COMMITTED:
      for path in sorted(self.folder.parent.glob(f"*/{page.PAGE_FILE}")):
        planned = page.PLAN_END in path.read_text(encoding="utf-8")
        if planned and path.parent != self.folder:
          found += records.load(path.parent / records.RESULTS_FILE)
    return found


def _add(name: str, cases: Mapping[str, Case], kept: dict[str, Case]) -> None:
  """Adds a case after those that it starts from."""
  for other in cases[name].after.values():
    _add(other, cases, kept)
  kept[name] = cases[name]


def _check_data(cases: Iterable[Case], data: str | None) -> None:
  """Raises a ValueError if a case reads data sets, and their folder is absent.

  It names the ways to give it.
  """
  if data is not None and pathlib.Path(data).is_dir():
    return
  needed = [
    case.name
    for case in cases
    if any((data or f"{_NO_DATA}/") in f"{v}" for v in case.overrides.values())
  ]
  if needed:
    given = (
      "no folder of data sets is given"
      if data is None
      else (f"--data={data} is no folder")
    )
    raise ValueError(
      f"{given}, which {len(needed)} cases need, such as {needed[0]}; give"
      f" --data=FOLDER, set {DATA_VARIABLE}, or choose --scale=ci"
    )


def _define_flags() -> None:
  """Defines the flags of a study's program."""
  if "scale" in flags.FLAGS:
    return
  name = {"module_name": "__main__"}
  flags.DEFINE_string(
    "scale", COMMITTED, "One of: " + ", ".join(SCALES) + ".", **name
  )
  flags.DEFINE_string(
    "data",
    os.environ.get(DATA_VARIABLE),
    f"Folder of data sets, by default that of the variable {DATA_VARIABLE}.",
    **name,
  )
  flags.DEFINE_string("workdir", None, "Folder of all runs.", **name)
  flags.DEFINE_integer("workers", 1, "Number of processes.", **name)
  flags.DEFINE_string(
    "only", None, "A part of the names of cases to run.", **name
  )
  flags.DEFINE_bool(
    "findings", default=False, help="Only draw the findings.", **name
  )
  flags.DEFINE_bool(
    "again",
    default=False,
    help="Run the study again in --workdir, and compare what it finds with the"
    " committed findings.",
    **name,
  )
  flags.DEFINE_string(
    "compile",
    None,
    "Only compile the steps of a scale, for TPUs that are absent, such as"
    " v5e:2x2.",
    **name,
  )


def _main(study: Study, argv: list[str]) -> None:
  """Runs what is missing, and draws the findings."""
  del argv
  given: Any = flags.FLAGS
  if given.findings:
    study.draw(scale=given.scale, workdir=given.workdir)
    return
  if given.compile is not None:
    study.compile(
      given.compile, scale=given.scale, data=given.data, only=given.only or ""
    )
    return
  if given.workdir is None:
    raise ValueError("--workdir is required without --findings")
  agrees = study.run(
    scale=given.scale,
    workdir=given.workdir,
    data=given.data,
    only=given.only or "",
    workers=given.workers,
    again=given.again,
  )
  if not agrees:
    raise SystemExit(1)
