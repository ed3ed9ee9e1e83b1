"""Figures of compared runs: metrics over steps and sizes, fractions of codes.

Each is drawn for light and for dark pages. Its colours are those of Okabe and
Ito, which people with any colour vision tell apart, and groups differ by line
style and marker, too.
"""

import contextlib
import itertools
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax.extras import needed_by
from bitnet_jax.files import PathLike, local_path
from bitnet_jax.programs.comparing.groups import Comparison, Group
from bitnet_jax.programs.comparing.report import Report
from bitnet_jax.programs.comparing.table import Row, is_fraction
from bitnet_jax.train.folder.metrics import read_metrics

_DPI = 160
# By page: ink, paper, grid and the colours of groups.
THEMES = {
  "light": (
    "#1a1a1a",
    "#ffffff",
    "#d9d9d9",
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
  ),
  "dark": (
    "#e6e6e6",
    "#0d1117",
    "#30363d",
    ("#56B4E9", "#E69F00", "#2BC89B", "#E294C0", "#F0E442", "#FF7F2A"),
  ),
}
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # One more than colours.
_MOST_PANELS = 12
_APART = 0.03  # between equal sizes, as a fraction of the axis
_CODES = {
  "negative": "negative codes (\N{MINUS SIGN}1)",
  "zero": "zero (0)",
  "positive": "positive codes (+1)",
}
_BAND = "line: mean of the seeds; band: lowest to highest"

Points = tuple[np.ndarray, np.ndarray]  # Steps, and values [runs, steps].


def draw(report: Report, folder: PathLike) -> list[str]:
  """Draws the figures of a report into a folder.

  Args:
    report: what was compared.
    folder: made if it is not there; ``curves-light.png`` and the like. Several
      comparisons get numbers.

  Returns:
    Lines that name the files, and what could not be drawn.

  Raises:
    OSError: if the folder cannot be made or written.
  """
  folder = local_path(folder)
  if folder.exists() and not folder.is_dir():
    raise NotADirectoryError(f"--figures={folder} is not a folder")
  folder.mkdir(parents=True, exist_ok=True)
  lines = []
  several = len(report.comparisons) > 1
  for i, comparison in enumerate(report.comparisons, start=1):
    number = f"-{i}" if several else ""
    rows = next(r for found, _, r in report.tables if found is comparison)
    for name, paint in (
      ("curves", _curves(comparison)),
      ("size", _sizes(comparison, rows)),
      ("codes", _codes(comparison)),
    ):
      if isinstance(paint, str):
        lines.append(f"{name}{number} is not drawn: {paint}")
        continue
      for theme in THEMES:
        path = folder / f"{name}{number}-{theme}.png"
        with _figure(theme, path) as figure:
          paint(figure, THEMES[theme])
        lines.append(f"{path}")
  return lines


Paint = Callable[[Any, Any], None]


@contextlib.contextmanager
def _figure(theme: str, path: pathlib.Path) -> Iterator[Any]:
  """Yields an empty figure in the colours of a theme, and writes it."""
  with needed_by("figures", "matplotlib"):
    import cycler
    import matplotlib
    from matplotlib.figure import Figure
  ink, paper, grid, colours = THEMES[theme]
  style = {
    "figure.facecolor": paper,
    "savefig.facecolor": paper,
    "axes.facecolor": paper,
    "axes.edgecolor": ink,
    "axes.labelcolor": ink,
    "axes.titlecolor": ink,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler.cycler(color=colours),
    "grid.color": grid,
    "text.color": ink,
    "xtick.color": ink,
    "ytick.color": ink,
    "legend.frameon": False,
    "font.size": 10,
    "font.family": "DejaVu Sans",
  }
  with matplotlib.rc_context(style):
    figure = Figure(layout="constrained")
    yield figure
    figure.savefig(path, dpi=_DPI)


def _look(i: int, theme: Any) -> dict[str, Any]:
  """Returns colour, line style and marker of group number ``i``."""
  colours = theme[3]
  return {
    "color": colours[i % len(colours)],
    "linestyle": _LINES[(i + i // len(colours)) % len(_LINES)],
    "marker": _MARKERS[i % len(_MARKERS)],
  }


def _metric_label(name: str) -> str:
  return f"{name} (%)" if is_fraction(name) else name


def _scaled(values: np.ndarray, name: str) -> np.ndarray:
  return 100 * values if is_fraction(name) else values


def points(group: Group, *names: str) -> Points | None:
  """Returns the values of metrics over steps, of the steps that all runs have.

  Args:
    group: the runs.
    *names: metrics; each of them gives as many rows as there are runs.

  Returns:
    Steps [s] and values [rows, s]; ``None`` where no step has them all.
  """
  found = []
  for run in group.runs.values():
    lines = read_metrics(run.folder)
    for name in names:
      found.append({x["step"]: x[name] for x in lines if name in x})
  steps = sorted(set.intersection(*(set(line) for line in found)))
  if not steps:
    return None
  values = [[line[step] for step in steps] for line in found]
  return np.array(steps), np.array(values)


def _band(axes: Any, found: Points, look: Mapping[str, Any]) -> None:
  """Draws the mean of rows as a line, and a band from lowest to highest."""
  steps, values = found
  look = dict(look)
  if len(steps) > 25:
    look.pop("marker", None)
  axes.plot(steps, values.mean(0), markersize=4, linewidth=1.6, **look)
  if len(values) > 1:
    low, high = values.min(0), values.max(0)
    axes.fill_between(
      steps, low, high, color=look["color"], alpha=0.18, linewidth=0
    )


def _curves(comparison: Comparison) -> Paint | str:
  """Returns what draws the validation metric and the training loss."""
  config = comparison.runs[0].config
  names = dict.fromkeys((config["checkpoint"]["metric"], "train/loss"))
  found = {
    name: [points(group, name) for group in comparison.groups] for name in names
  }
  found = {n: lines for n, lines in found.items() if any(lines)}
  if not found:
    return "the runs have no metrics over steps"

  def paint(figure, theme):
    width, height = 5 * len(found), 4 + 0.22 * len(comparison.groups)
    figure.set_size_inches(width, height)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, lines) in zip(panels, found.items(), strict=True):
      for i, line in enumerate(lines):
        if line is not None:
          look = _look(i, theme)
          _band(axes, (line[0], _scaled(line[1], name)), look)
      axes.set(xlabel="training step", ylabel=_metric_label(name))
    figure.suptitle(comparison.title, fontsize=11)
    _legend(figure, _names(comparison), theme, _BAND)

  return paint


def _legend(
  figure: Any,
  names: Sequence[str],
  theme: Any,
  title: str,
  **look: Any,
) -> None:
  """Adds names in the look of their numbers below the panels."""
  from matplotlib.lines import Line2D

  handles = [
    Line2D([], [], label=name, **(_look(i, theme) | look))
    for i, name in enumerate(names)
  ]
  figure.legend(
    handles=handles,
    loc="outside lower center",
    ncols=1 if len(names) < 3 or max(map(len, names)) > 30 else 3,
    title=title,
    fontsize=9,
    title_fontsize=9,
    handlelength=3.5,
  )


def _names(comparison: Comparison) -> list[str]:
  """Returns the groups' names with their numbers of runs, for a legend."""
  return [f"{g.name} (n = {len(g.runs)})" for g in comparison.groups]


def _sizes(comparison: Comparison, rows: Sequence[Row]) -> Paint | str:
  """Returns what draws a metric against the size of the frozen model."""
  sizes = {i: r.size / 1000 for i, r in enumerate(rows) if r.size is not None}
  if not sizes:
    return "the runs have not recorded what decides their size"
  metric = rows[0].metric

  def paint(figure, theme):
    figure.set_size_inches(6, 4.2 + 0.22 * len(rows))
    axes = figure.subplots()
    is_wide = max(sizes.values()) > 3 * min(sizes.values())
    for i, x in _side_by_side(sizes, is_wide=is_wide).items():
      scale = 100 if is_fraction(metric) else 1
      mean, low, high, *_ = rows[i].estimate
      errors = None
      if low is not None and high is not None:
        errors = [[scale * (mean - low)], [scale * (high - mean)]]
      look = _look(i, theme) | {"linestyle": "none"}
      axes.errorbar(x, scale * mean, errors, capsize=4, markersize=7, **look)
    if is_wide:
      axes.set_xscale("log")
      _plain_ticks(axes.xaxis, [*sizes.values()])
    axes.set(
      xlabel="size of the frozen model on disk (kB)",
      ylabel=_metric_label(metric),
    )
    axes.margins(x=0.15)
    figure.suptitle(comparison.title, fontsize=11)
    title = "mean and 95 % t-interval; equal sizes are drawn side by side"
    _legend(figure, _names(comparison), theme, title, linestyle="none")

  return paint


def _side_by_side(
  sizes: Mapping[int, float], *, is_wide: bool
) -> dict[int, float]:
  """Returns the sizes, equal ones moved apart so that none hides another.

  Args:
    sizes: by number of the group.
    is_wide: whether the axis is logarithmic.
  """
  values = [math.log(size) if is_wide else size for size in sizes.values()]
  apart = _APART * ((max(values) - min(values)) or abs(values[0]) or 1.0)
  found = {}
  for i, value in zip(sizes, values, strict=True):
    alike = [j for j in sizes if sizes[j] == sizes[i]]
    moved = value + apart * (alike.index(i) - (len(alike) - 1) / 2)
    found[i] = math.exp(moved) if is_wide else moved
  return found


def _plain_ticks(axis: Any, values: Sequence[float]) -> None:
  """Marks a logarithmic axis at 1, 2 and 5 times powers of ten."""
  from matplotlib import ticker

  low, high = min(values) / 2, max(values) * 2
  powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  ticks = [m * 10.0**p for p, m in itertools.product(powers, (1, 2, 5))]
  axis.set_major_locator(
    ticker.FixedLocator([t for t in ticks if low < t < high])
  )
  axis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:,g}"))
  axis.set_minor_locator(ticker.NullLocator())


def _codes(comparison: Comparison) -> Paint | str:
  """Returns what draws the fractions of codes of each group over steps."""
  panels: list[tuple[str, list[Points]]] = []
  for group in comparison.groups:
    lines = [_fractions(group, code) for code in _CODES]
    there = [line for line in lines if line is not None]
    if len(there) == len(lines):
      panels.append((group.name, there))
  if not panels:
    return "no run has code statistics (statistics_every)"
  panels = panels[:_MOST_PANELS]

  def paint(figure, theme):
    columns = min(len(panels), 3)
    height = math.ceil(len(panels) / columns)
    figure.set_size_inches(4.2 * columns + 0.6, 3.2 * height + 0.9)
    grid = figure.subplots(height, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
      axes.set_visible(False)
    for axes, (name, lines) in zip(grid.flat, panels, strict=False):
      for i, (steps, values) in enumerate(lines):
        _band(axes, (steps, 100 * values), _look(i, theme))
      axes.set_title(name, fontsize=10)
      axes.set(xlabel="training step")
    for axes in grid[:, 0]:
      axes.set_ylabel("fraction of the codes (%)")
    grid[0, 0].set_ylim(bottom=0)  # Of all panels, once all are drawn.
    figure.suptitle(comparison.title, fontsize=11)
    title = "line: mean of layers and seeds; band: lowest to highest"
    _legend(figure, [*_CODES.values()], theme, title)

  return paint


def _fractions(group: Group, code: str) -> Points | None:
  """Returns the fraction of a code in all ternary layers over steps."""
  ending = f"/{code}_fraction"
  lines = read_metrics(group.first.folder)
  names = {n: None for x in lines for n in x if n.endswith(ending)}
  return points(group, *names) if names else None
