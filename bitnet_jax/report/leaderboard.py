"""The best cells of each family of models, by data set."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bitnet_jax.programs.comparing import intervals
from bitnet_jax.report import links
from bitnet_jax.report.reading import Study
from bitnet_jax.report.runs import Run, as_text

MOST_ROWS = 10  # of a board, besides the best of each recipe


class Place(NamedTuple):
  """A cell of a study on a board.

  Attributes:
    rank: from 1; ``None`` if a run diverged or has no value.
    study: its study.
    runs: its runs, of different seeds.
    recipe: recipe of its runs.
    cell: its cell, as text.
    link: to its records.
    page: of its study.
    value: mean and 95 % interval over seeds; ``None`` without values.
    diverged: number of runs that diverged.
    params: number of parameters, if known.
  """

  rank: int | None
  study: Study
  runs: Sequence[Run]
  recipe: str
  cell: str
  link: str
  page: str
  value: intervals.Estimate | None
  diverged: int
  params: int | None


class Board(NamedTuple):
  """Places of one family on one data set.

  Attributes:
    family: of models.
    data: the data set.
    metric: what ranks them.
    mode: "max" or "min".
    places: those with a rank, best first.
    hidden: number of further cells.
  """

  family: str
  data: str
  metric: str
  mode: str
  places: Sequence[Place]
  hidden: int


def boards(studies: Sequence[Study]) -> list[Board]:
  """Returns all boards, by family and data set.

  A board ranks the means over seeds of one metric: that of the test split if
  all runs have it. Cells of which a run diverged have no rank.
  """
  groups: dict[tuple[str, str, str, str], list[tuple[Study, Run]]] = {}
  for study in studies:
    for run in study.runs:
      # Older records do not say which of them belong together.
      if run.family and run.data and "schema" in run.record:
        key = (run.family, run.data, run.metric, run.mode)
        groups.setdefault(key, []).append((study, run))
  found = [_board(*key, group) for key, group in sorted(groups.items())]
  return [board for board in found if board.places]


def _board(
  family: str, data: str, metric: str, mode: str, group: Sequence[Any]
) -> Board:
  name = f"test/{metric.partition('/')[2]}"
  finished = [run for _, run in group if not run.has_diverged]
  if not all(run.record["metrics"].get(name) is not None for run in finished):
    name = metric
  cells: dict[tuple[Any, ...], list[tuple[Study, Run]]] = {}
  for study, run in group:
    pairs = tuple((k, as_text(v)) for k, v in run.cell.items())
    key = (study.slug, pairs, run.record.get("scale"))
    cells.setdefault(key, []).append((study, run))
  places = [_place(found, name) for found in cells.values()]
  ranked = [(p.value.mean, p) for p in places if p.value and not p.diverged]
  ranked.sort(key=lambda pair: pair[0], reverse=mode == "max")
  shown = list(_shown([place for _, place in ranked]))
  return Board(family, data, name, mode, shown, len(places) - len(shown))


def _shown(ranked: Sequence[Place]) -> Iterator[Place]:
  """Yields the first places, and the best one of each further recipe."""
  seen = set()
  for rank, place in enumerate(ranked, start=1):
    if rank <= MOST_ROWS or place.recipe not in seen:
      yield place._replace(rank=rank)
    seen.add(place.recipe)


def _place(found: Sequence[tuple[Study, Run]], name: str) -> Place:
  study, runs = found[0][0], [run for _, run in found]
  values = [
    run.record["metrics"][name]
    for run in runs
    if not run.has_diverged and run.record["metrics"].get(name) is not None
  ]
  cell: Mapping[str, str] = {k: as_text(v) for k, v in runs[0].cell.items()}
  params = [run.record.get("num_params") for run in runs]
  known = [count for count in params if count is not None]
  return Place(
    rank=None,
    study=study,
    runs=runs,
    recipe=runs[0].recipe,
    cell=", ".join(f"{k} {v}" for k, v in cell.items()),
    link=links.to_records(study, cell),
    page=links.to_study(study),
    value=intervals.estimate(values) if values else None,
    diverged=sum(run.has_diverged for run in runs),
    params=int(statistics.median(known)) if known else None,
  )
