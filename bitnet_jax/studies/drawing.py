"""Figures of findings as SVG, readable on light and on dark pages."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bitnet_jax import extras

_SIZE = (6.0, 3.4)  # inches
_INK = "#767676"  # Its contrast with white and with black is above 4.
_COLORS = {
  "float32": "#3b7dd8",
  "bfloat16": "#1f9e9e",
  "b158": "#d9661f",
  "b158_median": "#a45bc4",
}
_OTHERS = (
  "#3b7dd8",
  "#d9661f",
  "#2a9d58",
  "#a45bc4",
  "#c8405a",
  "#1f9e9e",
  "#8f7a1f",
  "#6c7a89",
)
_BARS = 0.8  # width of the bars of all series at one place
_MOST_LETTERS = 50  # of all texts at an axis, beside one another
_KEY = re.compile(r"\b\w+=")  # in the name of a cell
_MOST_TICKS = 10  # on a logarithmic axis, at the values themselves
_MARKERS = "osD^vPX*"
_STYLE = {
  "svg.hashsalt": "bitnet_jax",  # The same figure has the same bytes.
  "svg.fonttype": "none",
  "font.size": 9,
  "axes.titlesize": 10,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "legend.frameon": False,
  **dict.fromkeys(
    (
      "text.color",
      "axes.labelcolor",
      "axes.edgecolor",
      "xtick.color",
      "ytick.color",
      "grid.color",
    ),
    _INK,
  ),
}


def svg(figure: Mapping[str, Any]) -> str:
  """Returns an SVG file with a figure of ``findings.json``.

  It depends on the figure and on the version of matplotlib only.
  """
  with extras.needed_by("drawing of figures", "matplotlib"):
    import matplotlib
    from matplotlib.figure import Figure
  with matplotlib.rc_context(_STYLE):
    drawn = Figure(figsize=_SIZE, layout="constrained")
    axes = drawn.add_subplot()
    if figure["kind"] == "heat":
      _heat(axes, figure["series"][0])
    else:
      _plot(axes, figure)
    axes.set_title(figure["title"])
    axes.set_xlabel(figure["x"]["label"])
    axes.set_ylabel(figure["y"]["label"])
    file = io.StringIO()
    drawn.savefig(file, format="svg", transparent=True, metadata={"Date": None})
  lines = (line.rstrip() for line in file.getvalue().splitlines())
  return "\n".join(lines) + "\n"


def _plot(axes: Any, figure: Mapping[str, Any]) -> None:
  """Draws lines, points or bars with their intervals."""
  kind, shown = figure["kind"], figure["series"]
  names = _categories(shown)
  for number, series in enumerate(shown):
    x, y = series["x"], np.array(series["y"], np.float64)
    if names is not None:
      x = [names.index(f"{value}") for value in x]
    x = np.array(x, np.float64)
    style = {
      "color": _COLORS.get(series["name"], _OTHERS[number % len(_OTHERS)]),
      "label": series["name"],
    }
    marker = _MARKERS[number % len(_MARKERS)]
    if kind == "bars":
      place = (number - (len(shown) - 1) / 2) / len(shown)
      _bars(axes, (x + _BARS * place, y), series, style, _BARS / len(shown))
    elif kind == "lines":
      _line(axes, (x, y), series, {**style, "marker": marker})
    else:
      _points(axes, (x, y), series, {**style, "marker": marker})
  if names is not None:
    _name_places(axes, names)
  elif figure["x"]["log"]:
    axes.set_xscale("log")
    values = sorted({value for series in shown for value in series["x"]})
    if len(values) <= _MOST_TICKS:
      axes.set_xticks(values, [_word(value) for value in values])
      axes.set_xticks([], minor=True)
  if figure["y"]["log"]:
    axes.set_yscale("log")
  axes.grid(axis="y", alpha=0.25, linewidth=0.6)
  if len(shown) > 1:
    axes.legend()


def _line(axes, points, series, style):
  """Draws a line, with its intervals as a band."""
  axes.plot(*points, markersize=3.5, linewidth=1.4, **style)
  if "low" in series:
    low, high = (np.array(series[k], np.float64) for k in ("low", "high"))
    color = style["color"]
    axes.fill_between(points[0], low, high, color=color, alpha=0.2, linewidth=0)


def _points(axes, points, series, style):
  """Draws points with their intervals."""
  errors = _errors(points[1], series)
  axes.errorbar(*points, errors, linestyle="", capsize=2, markersize=4, **style)


def _bars(axes, points, series, style, width):
  """Draws bars with their intervals."""
  axes.bar(*points, 0.9 * width, **style)
  errors = _errors(points[1], series)
  axes.errorbar(*points, errors, color=_INK, linestyle="", capsize=2)


def _errors(y: np.ndarray, series: Mapping[str, Any]) -> np.ndarray | None:
  """Returns the distances to the ends of intervals, [2, points], if any."""
  if "low" not in series:
    return None
  low, high = (np.array(series[key], np.float64) for key in ("low", "high"))
  return np.nan_to_num(np.maximum([y - low, high - y], 0))


def _categories(shown: Any) -> list[str] | None:
  """Returns the texts of a horizontal axis without numbers, in order."""
  values = [value for series in shown for value in series["x"]]
  if not any(isinstance(value, str) for value in values):
    return None
  return list(dict.fromkeys(f"{value}" for value in values))


def _name_places(axes: Any, names: Sequence[str]) -> None:
  """Writes texts at an axis, slanted if they are long: of "a=b", the "b"."""
  words = [_KEY.sub("", name) for name in names]
  long = sum(map(len, words)) > _MOST_LETTERS
  slant = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
  axes.set_xticks(range(len(names)), words, **(slant if long else {}))


def _heat(axes: Any, series: Mapping[str, Any]) -> None:
  """Draws a table of colored numbers."""
  z = np.array(series["z"], np.float64)
  finite = z[np.isfinite(z)]
  low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
  axes.pcolormesh(np.ma.masked_invalid(z), cmap="viridis", vmin=low, vmax=high)
  for row, column in np.ndindex(*z.shape):
    value = z[row, column]
    ends = np.isfinite(value) and value > (low + high) / 2
    text = f"{value:.3g}" if np.isfinite(value) else "none"
    color = _INK if not np.isfinite(value) else "black" if ends else "white"
    axes.text(
      column + 0.5,
      row + 0.5,
      text,
      color=color,
      ha="center",
      va="center",
      fontsize=7,
    )
  axes.set_xticks(np.arange(z.shape[1]) + 0.5, [_word(v) for v in series["x"]])
  axes.set_yticks(np.arange(z.shape[0]) + 0.5, [_word(v) for v in series["y"]])


def _word(value: Any) -> str:
  return value if isinstance(value, str) else f"{value:g}"
