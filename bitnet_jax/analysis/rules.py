"""The rules of verdicts: from an interval to an outcome."""

import dataclasses

from bitnet_jax.analysis import estimates

HOLDS = "holds"
DOES_NOT_HOLD = "does not hold"
EQUIVALENT = "equivalent within the margin"
NOT_DECIDABLE = "not decidable at this scale"
OUTCOMES = (HOLDS, DOES_NOT_HOLD, EQUIVALENT, NOT_DECIDABLE)
RULES = ("better", "no worse", "equal", "in range")
COMBINATIONS = ("mean", "all", "most", "any")


@dataclasses.dataclass(frozen=True)
class Question:
  """A rule with its numbers, for effects of which higher ones are better.

  Attributes:
    rule: one of ``RULES``.
    low: lower bound: minus the margin, or that of a range.
    high: upper bound.
    sign: -1 for metrics of which lower values are better.
    level: of the intervals.
  """

  rule: str
  low: float
  high: float
  sign: int
  level: float

  def p_values(self, found: estimates.Estimate) -> tuple[float, ...]:
    """Returns those of above low, below low, above 0, above and below high."""
    above, below = found.p_above, found.p_below
    if self.sign < 0:
      # Below a bound of the metric is above its opposite here.
      above, below = (
        lambda x: found.p_below(-x),
        lambda x: found.p_above(-x),
      )
    low, high = self.low, self.high
    return above(low), below(low), above(0.0), above(high), below(high)

  def outcome(self, p_values: tuple[float, ...]) -> str:
    """Returns the outcome of a cell from its five (adjusted) p-values."""
    # Strictly, as an end of an interval beyond a bound: see ``decides``.
    alpha = (1 - self.level) / 2
    found = [p < alpha for p in p_values]
    above_low, below_low, above_0, above_high, below_high = found
    if self.rule == "better":
      if below_high:
        return EQUIVALENT if above_low else DOES_NOT_HOLD
      return HOLDS if above_0 else NOT_DECIDABLE
    if self.rule == "no worse":
      if above_low:
        return HOLDS
      return DOES_NOT_HOLD if below_low else NOT_DECIDABLE
    if above_low and below_high:
      return HOLDS
    return DOES_NOT_HOLD if below_low or above_high else NOT_DECIDABLE

  def decides(self, low: float, high: float) -> bool:
    """Whether an interval of the metric with these ends decides."""
    if self.sign < 0:
      low, high = -high, -low
    p_values = [
      float(not beyond)
      for beyond in (
        low > self.low,
        high < self.low,
        low > 0,
        low > self.high,
        high < self.high,
      )
    ]
    return self.outcome(tuple(p_values)) != NOT_DECIDABLE


def combine(how: str, alone: list[str], adjusted: list[str]) -> str:
  """Returns the outcome over cells from the cells' outcomes."""
  against = (DOES_NOT_HOLD, EQUIVALENT)
  if how == "any":
    if HOLDS in adjusted:
      return HOLDS
    if all(o == EQUIVALENT for o in alone):
      return EQUIVALENT
    return DOES_NOT_HOLD if all(o in against for o in alone) else NOT_DECIDABLE
  if how == "all":
    for outcome in (HOLDS, EQUIVALENT):
      if all(o == outcome for o in alone):
        return outcome
    return DOES_NOT_HOLD if set(against) & set(adjusted) else NOT_DECIDABLE
  half = len(adjusted) / 2
  for outcome in (HOLDS, EQUIVALENT):
    if adjusted.count(outcome) > half:
      return outcome
  return (
    DOES_NOT_HOLD
    if sum(o in against for o in adjusted) >= half
    else NOT_DECIDABLE
  )


def p_holds(question: Question, p_values: tuple[float, ...]) -> float:
  """Returns the two-sided p-value of the outcome "holds"."""
  above_low, _, above_0, _, below_high = p_values
  one_sided = {"better": above_0, "no worse": above_low}
  found = one_sided.get(question.rule, max(above_low, below_high))
  return min(1.0, 2 * float(found))


def describe(question: Question, outcome: str, unit: str) -> str:
  """Returns the rule in words."""
  suffix = f" {unit}" if unit else ""
  margin = f"{question.high:g}{suffix}"
  if question.rule == "in range":
    low, high = question.low, question.high
    place = f"the range from {low:g} to {high:g}{suffix}"
    return {
      HOLDS: f"the interval is within {place}",
      DOES_NOT_HOLD: f"the interval is outside of {place}",
      NOT_DECIDABLE: f"the interval crosses an end of {place}",
    }[outcome]
  if outcome == EQUIVALENT or (question.rule == "equal" and outcome == HOLDS):
    return f"the difference is within the margin of {margin}"
  return {
    ("better", HOLDS): "the difference is in favor of the claim",
    ("better", DOES_NOT_HOLD): f"an advantage of {margin} is excluded",
    ("no worse", HOLDS): f"a disadvantage of {margin} is excluded",
    ("no worse", DOES_NOT_HOLD): f"the disadvantage is above {margin}",
    ("equal", DOES_NOT_HOLD): f"the difference is above {margin}",
  }.get(
    (question.rule, outcome),
    f"the interval is too wide for the margin of {margin}",
  )
