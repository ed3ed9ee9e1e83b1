"""Findings about width: how many times wider must ternary nets be?"""

import contextlib
import functools
from collections.abc import Sequence

from bitnet_jax.analysis import capacity, estimates, pairs, verdicts
from bitnet_jax.studies import summaries
from bitnet_jax.studies.findings import Axis, Column, Figure, Findings, Table
from bitnet_jax.studies.runs import Runs

# The second one has the norms of ternary layers.
FULL, NORMALIZED, TERNARY = "float32", "float32_norm", "b158"
_RATIO_COLUMNS = (
  Column("data"),
  Column("precision"),
  Column("reference"),
  Column("kind", "at"),
  Column("ratio", "times as wide", digits=2),
  Column("low", "from", digits=2),
  Column("high", "to (95 %)", digits=2),
)


def findings(
  runs: Runs,
  *,
  claim: int,
  metric: str = "valid/loss",
  margin: float = 0.02,
  worst: float,
  bounds: tuple[float, float] = (1.5, 3.0),
  further: Sequence[float] = (),
  unit: str = "nats",
  comparisons: int = 3,
) -> Findings:
  """Compares nets of several widths in several precisions, for a loss.

  Three verdicts: full precision is better at equal width (mean over widths),
  the ternary net of twice the width is no worse (each width), and the capacity
  ratio lies within bounds. The last one is not decidable if no loss is reached
  by both.

  Args:
    runs: with the keys "data", "precision" and "width" in their cells. The
      verdicts compare "float32" with "b158", the table of ratios also the other
      ternary precisions and "float32_norm".
    claim: number of the claim.
    metric: the loss.
    margin: a difference of the loss that matters.
    worst: the loss of a run that diverged.
    bounds: of the capacity ratio, for the claim.
    further: widths in full precision to which the ratio is extrapolated.
    unit: of the loss.
    comparisons: number of verdicts on the claim, with those of other functions.
  """
  curves = {
    key: summaries.curve(found, "width", metric)
    for key, found in runs.group("data", "precision").items()
  }
  same, double, measured, rows = {}, {}, {}, []
  for (data, precision), losses in curves.items():
    if not precision.startswith(TERNARY):
      continue
    for name in (FULL, NORMALIZED):
      other = curves.get((data, name), {})
      found = ratios(other, losses, further, diverged=worst) if other else {}
      for kind, ratio in found.items():
        row = [data, precision, name, kind, ratio.value, *ratio.interval()]
        rows.append(row)
      if other and (precision, name) == (TERNARY, FULL):
        nothing = estimates.unknown(
          min(map(len, losses.values())), f"{data}: no loss in common"
        )
        measured[data] = found.get("measured", nothing)
    if precision == TERNARY:
      full = curves[data, FULL]
      for width in sorted(full.keys() & losses.keys()):
        name = f"{data}, width {width}"
        same[name] = pairs.pair(full[width], losses[width], diverged=worst)
      for width in sorted(full.keys() & {width / 2 for width in losses}):
        wide = losses[2 * width]
        name = f"{data}, width {width}"
        double[name] = pairs.pair(wide, full[width], diverged=worst)
  judge = functools.partial(
    verdicts.verdict, claim=claim, scale=runs.scale, comparisons=comparisons
  )
  lower = {"margin": margin, "better": "lower", "unit": unit}
  text = f"{FULL} has a lower loss than {TERNARY} of the same width"
  judged = [judge("better", same, statement=text, **lower)]
  text = f"{TERNARY} of twice the width is no worse than {FULL}"
  judged.append(
    judge("no worse", double, statement=text, combine="all", **lower)
  )
  if measured:
    text = f"{TERNARY} must be {bounds[0]:g} to {bounds[1]:g} times as wide"
    about = {"statement": text, "bounds": bounds, "unit": "times as wide"}
    judged.append(judge("in range", measured, combine="all", **about))
  keys = ("data", "precision", "width")
  tables = [
    summaries.table("losses", "Loss by width", runs, keys, metric),
    Table("ratios", "Capacity ratio", _RATIO_COLUMNS, rows),
  ]
  series = [summaries.series(", ".join(k), c) for k, c in curves.items()]
  axes = Axis("Width", log=True), Axis(f"{metric} ({unit})")
  figure = Figure("losses", "Loss by width", "lines", *axes, series)
  return Findings(judged, tables, [figure])


def ratios(
  reference: capacity.Curve,
  candidate: capacity.Curve,
  widths: Sequence[float],
  *,
  diverged: pairs.Diverged,
) -> dict[str, estimates.Estimate]:
  """Returns capacity ratios, measured and extrapolated by each model.

  Args:
    reference: by width, losses by seed.
    candidate: likewise.
    widths: of the reference, to which the ratio is extrapolated.
    diverged: what a diverged run counts as.

  Returns:
    Ratios by what they are: "measured", "width 512, power". Those that the
    losses do not determine are absent.
  """
  found = {}
  with contextlib.suppress(capacity.NoOverlapError):
    found["measured"] = capacity.ratio(reference, candidate, diverged=diverged)
  for model in ("power", "trend"):
    with contextlib.suppress(ValueError):
      further = capacity.extrapolate(
        reference, candidate, widths, diverged=diverged, model=model
      )
      found |= {f"width {width:g}, {model}": further[width] for width in widths}
  return found
