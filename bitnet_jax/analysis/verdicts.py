"""Verdicts on claims: fixed rules that read an interval."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from bitnet_jax.analysis import estimates, pairs, power, rules, significance
from bitnet_jax.analysis.rules import (
  COMBINATIONS,
  NOT_DECIDABLE,
  OUTCOMES,
  RULES,
)
from bitnet_jax.choices import check

MIN_SEEDS = 5

Cell = pairs.Pairs | estimates.Estimate
Bounds = tuple[float, float]


class TooFewSeedsError(ValueError):
  """A verdict was asked for from fewer than 5 seeds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellResult:
  """What one cell says about a claim.

  Attributes:
    name: of the cell.
    effect: estimate of the cell, in the unit of the verdict.
    interval: its interval at the level of the verdict.
    seeds: number of seeds or pairs.
    outcome: that of the cell by itself.
    p_value: of the outcome "holds", adjusted by Holm's method over the cells.
  """

  name: str
  effect: float
  interval: Bounds
  seeds: int
  outcome: str
  p_value: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
  """The answer of a study to a claim.

  Attributes:
    claim: number of the claim.
    statement: what the claim says, in terms of the study.
    outcome: one of ``OUTCOMES``.
    effect: the estimate that decided, such as a mean difference.
    interval: its two-sided interval at ``level``; an end may be infinite.
    unit: of effect and interval.
    level: confidence level.
    seeds: number of seeds or pairs of the smallest cell.
    scale: scale of the study.
    cells: each cell's result, if several cells were given by name.
    seeds_needed: for a claim that is not decidable, an estimate of the seeds
      that would decide it with a probability of 0.8; ``None`` for other
      outcomes, for fewer than 5 seeds, and for more than 10,000.
    reason: a sentence that explains the outcome.
  """

  claim: int | str
  statement: str
  outcome: str
  effect: float
  interval: Bounds
  unit: str
  level: float
  seeds: int
  scale: str
  cells: tuple[CellResult, ...]
  seeds_needed: int | None
  reason: str

  def as_json(self) -> dict[str, Any]:
    """Returns the fields for JSON; an infinite number is ``None``."""
    return _plain(dataclasses.asdict(self))


def verdict(
  rule: str,
  cells: Cell | Mapping[str, Cell],
  *,
  claim: int | str,
  statement: str,
  scale: str,
  unit: str = "",
  margin: float = 0.0,
  better: str | None = None,
  bounds: Bounds | None = None,
  combine: str = "mean",
  comparisons: int = 1,
  level: float = estimates.LEVEL,
) -> Verdict:
  """Decides a claim by a fixed rule.

  The rules read the interval of the advantage of the first side, with ends
  ``low`` and ``high`` and the margin m:

  - "better": within -m and m: equivalent within the margin. Otherwise
    ``high < m``: does not hold. ``low > 0``: holds.
  - "no worse" (by more than m): ``low > -m``: holds. ``high < -m``: does not
    hold.
  - "equal" (within m): within -m and m: holds. Outside: does not hold.
  - "in range": within the bounds: holds. Outside: does not hold.

  In all other cases the claim is not decidable at this scale. Over several
  cells, a claim of "all" cells holds if each cell holds at its own level (an
  intersection-union test), and does not hold as soon as one cell contradicts
  it after Holm's correction. For "any" cell it is the other way round. "most"
  means more than half of the cells, all after Holm's correction. "mean" is
  about the mean over cells of each seed. Effect and interval are those of the
  mean, or of the cell that decides: the weakest, the strongest or the middle
  one.

  Args:
    rule: one of ``RULES``.
    cells: pairs or an estimate, or several of them by the name of their cell.
    claim: number of the claim.
    statement: what the claim says, in terms of the study.
    scale: scale of the study.
    unit: of effect and margin.
    margin: the largest difference that does not matter.
    better: "higher" or "lower": which values of the metric are better. The
      rules "better" and "no worse" need it.
    bounds: of the rule "in range"; one of them may be infinite.
    combine: one of ``COMBINATIONS``; "mean" of several cells needs pairs.
    comparisons: number of verdicts on this claim. The level is raised so that
      the probability of a wrong one among them stays the same (Bonferroni).
    level: of the two-sided intervals, before that.

  Raises:
    TooFewSeedsError: if a cell has fewer than 5 seeds. At the scale "ci" the
      claim is not decidable instead.
    ValueError: for unknown words, a missing margin or bounds, and no cells.
  """
  check(combine, COMBINATIONS, key="combine")
  if comparisons < 1:
    raise ValueError(f"comparisons is {comparisons}, but it must be at least 1")
  level = 1 - (1 - level) / comparisons
  question = _question(rule, margin, better, bounds, level)
  named = isinstance(cells, Mapping)
  if not isinstance(cells, Mapping):
    cells = {"": cells}
  if not cells:
    raise ValueError(f"claim {claim}: no cells to decide {statement!r} by")
  found = {name: _estimate(cell) for name, cell in cells.items()}
  results, adjusted = _results(question, found)
  if len(cells) > 1 and combine == "mean":
    chosen, text = _mean(cells), f"mean over {len(cells)} cells"
  else:
    chosen, text = _middle(question, combine, found, results)
  if len(cells) == 1 or combine == "mean":
    asked, outcome = [chosen], question.outcome(question.p_values(chosen))
  else:
    asked = [*found.values()]
    outcome = rules.combine(combine, [r.outcome for r in results], adjusted)
  seeds = min(chosen.seeds, *(r.seeds for r in results))
  reasons = [rules.describe(question, outcome, unit), text]
  if seeds < MIN_SEEDS:
    few = f"seeds: {seeds}, but a verdict needs at least {MIN_SEEDS}"
    if scale != "ci":
      raise TooFewSeedsError(f"claim {claim}, {statement!r}: {few}")
    outcome, reasons = NOT_DECIDABLE, [few]
  is_open = outcome == NOT_DECIDABLE and seeds >= MIN_SEEDS
  notes = dict.fromkeys(
    note for estimate in (*found.values(), chosen) for note in estimate.notes
  )
  return Verdict(
    claim=claim,
    statement=statement,
    outcome=outcome,
    effect=chosen.value,
    interval=chosen.interval(level),
    unit=unit,
    level=level,
    seeds=seeds,
    scale=scale,
    cells=results if named else (),
    seeds_needed=_needed(question, asked, combine) if is_open else None,
    reason="; ".join(filter(None, (*reasons, *notes))),
  )


def _question(
  rule: str,
  margin: float,
  better: str | None,
  bounds: Bounds | None,
  level: float,
) -> rules.Question:
  check(rule, RULES, key="rule")
  if not 0.5 < level < 1:
    raise ValueError(f"level is {level!r}, but it must be between 0.5 and 1")
  if rule == "in range":
    if bounds is None or not bounds[0] < bounds[1]:
      raise ValueError(f"bounds are {bounds!r}, but the rule needs low < high")
    return rules.Question(rule, *bounds, 1, level)
  if not (margin > 0 or (margin == 0 and rule == "better")):
    raise ValueError(
      f"margin is {margin!r}, but the rule {rule!r} needs a positive one"
    )
  if rule != "equal":
    check(better, ("higher", "lower"), key="better")
  sign = -1 if better == "lower" else 1
  return rules.Question(rule, -margin, margin, sign, level)


def _estimate(cell: Cell) -> estimates.Estimate:
  return estimates.mean(cell) if isinstance(cell, pairs.Pairs) else cell


def _mean(cells: Mapping[str, Cell]) -> estimates.Estimate:
  for name, cell in cells.items():
    if not isinstance(cell, pairs.Pairs):
      raise ValueError(
        f"cell {name!r} is an estimate, but a mean over cells needs pairs: "
        "combine them by 'all', 'most' or 'any'"
      )
  return estimates.mean(pairs.average(cells.values()))  # type: ignore[arg-type]


def _results(
  question: rules.Question, found: Mapping[str, estimates.Estimate]
) -> tuple[tuple[CellResult, ...], list[str]]:
  """Returns each cell's result, and its outcome after Holm's correction."""
  p_values = {name: question.p_values(e) for name, e in found.items()}
  by_test = [significance.holm(p) for p in zip(*p_values.values(), strict=True)]
  corrected = list(zip(*by_test, strict=True))
  results = tuple(
    CellResult(
      name=name,
      effect=estimate.value,
      interval=estimate.interval(question.level),
      seeds=estimate.seeds,
      outcome=question.outcome(p_values[name]),
      p_value=rules.p_holds(question, p),
    )
    for (name, estimate), p in zip(found.items(), corrected, strict=True)
  )
  return results, [question.outcome(p) for p in corrected]


def _middle(
  question: rules.Question,
  combine: str,
  found: Mapping[str, estimates.Estimate],
  results: tuple[CellResult, ...],
) -> tuple[estimates.Estimate, str]:
  """Returns the estimate of the cell that decides, and a text about cells."""
  if len(found) == 1:
    return next(iter(found.values())), ""
  center = 0.0
  if question.rule == "in range" and math.isfinite(
    question.low + question.high
  ):
    center = (question.low + question.high) / 2

  def strength(name: str) -> float:
    if question.rule in ("better", "no worse"):
      return question.sign * found[name].value
    if question.rule == "in range" and math.isinf(question.low):
      return -found[name].value
    if question.rule == "in range" and math.isinf(question.high):
      return found[name].value
    return -abs(found[name].value - center)

  order = sorted(found, key=strength)
  position = {"all": 0, "any": -1, "most": (len(order) - 1) // 2}[combine]
  which = {"all": "weakest", "any": "strongest", "most": "middle"}[combine]
  name = order[position]
  counts = ", ".join(
    f"{count} {outcome}"
    for outcome in OUTCOMES
    if (count := sum(r.outcome == outcome for r in results))
  )
  return found[name], (
    f"{combine} of {len(order)} cells ({counts}); the effect is that of the "
    f"{which} cell, {name}"
  )


def _needed(
  question: rules.Question, asked: list[estimates.Estimate], combine: str
) -> int | None:
  """Returns the seeds that decide all, most or any of these estimates."""
  # The first level of Holm's correction, which is the highest.
  level = 1 - (1 - question.level) / len(asked)
  question = dataclasses.replace(question, level=level)
  needed = sorted(_needed_alone(question, estimate) for estimate in asked)
  place = {"any": 0, "most": len(needed) // 2}.get(combine, -1)
  return None if math.isinf(needed[place]) else int(needed[place])


def _needed_alone(question: rules.Question, found: estimates.Estimate) -> float:
  """Returns the seeds that decide one estimate, infinite above 10,000."""
  low, high = interval = found.interval(question.level)
  if question.decides(low, high):
    return found.seeds
  if math.isinf(low) or math.isinf(high):
    return math.inf
  needed = power.seeds_to_decide(
    question.decides, found.value, interval, found.seeds, level=question.level
  )
  return math.inf if needed is None else needed


def _plain(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
