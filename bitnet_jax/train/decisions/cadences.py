"""Decides the length of a run, its warm-up, and what happens how often."""

import math

from bitnet_jax import backend
from bitnet_jax.train.decisions.decisions import Decisions
from bitnet_jax.train.tasks.facts import DataFacts

# Keys that only a config with a budget uses, and what to set in others.
_INSTEAD = {
  "evaluations": "eval_every",
  "optim.warmup_fraction": "optim.warmup_steps",
}
_LOGGED = 100  # times that a run logs
_DISPATCHED = 20  # most steps in one program


def check_unused(decisions: Decisions) -> None:
  """Raises a ValueError for a key that needs a budget, in a config without."""
  for key, instead in _INSTEAD.items():
    value = decisions.given(key)
    if value is not None:
      raise ValueError(
        f"{key} is {value}, which a config without a budget does not use; set"
        f" {instead}"
      )


def decide(decisions: Decisions, facts: DataFacts) -> None:
  """Decides length, warm-up and cadences.

  Args:
    decisions: what was decided before.
    facts: sizes of the data.
  """
  total = _decide_length(decisions, facts)
  optim, evaluations = decisions.config["optim"], decisions.given("evaluations")
  fraction = optim["warmup_fraction"] or 0.0
  # Less than the run, however short it is.
  decisions.decide(
    "optim.warmup_steps",
    min(round(fraction * total), total - 1),
    f"{100 * fraction:g} % of {total:,} steps",
  )
  every = max(math.ceil(total / evaluations), 1) if evaluations else 0
  reason = f"{evaluations} in {total:,} steps"
  if "valid" not in facts.splits:
    every, reason = 0, "there is no validation split"
  decisions.decide("eval_every", every, reason)
  evaluates = bool(decisions.given("eval_every"))
  reason = "the best of the evaluations" if evaluates else "no evaluation"
  decisions.decide("checkpoint.keep_best", int(evaluates), reason)
  often = decisions.given("eval_every") or max(math.ceil(total / 10), 1)
  decisions.decide("checkpoint_every", often, "with the evaluations")
  decisions.decide("statistics_every", often, "with the evaluations")
  log_every = decisions.decide(
    "log_every", max(total // _LOGGED, 1), f"about {_LOGGED} in {total:,} steps"
  )
  at_once, reason = min(_DISPATCHED, log_every), "no more than are logged"
  if decisions.config["model"]["name"] == "cnn" and backend.current() == "cpu":
    at_once, reason = 1, "convolutions are slow in a loop on CPU"
  decisions.decide("steps_per_dispatch", at_once, reason)


def _decide_length(decisions, facts) -> int:
  """Returns the length of the run."""
  settings, budget = decisions.settings, decisions.budget
  if settings.total_epochs is not None:
    # Left to the runner, which counts the steps of epochs.
    return settings.count_steps(
      examples=facts.num_examples, batches_per_epoch=facts.batches_per_epoch
    )
  examples, size = facts.num_examples, settings.data.batch_size
  per_epoch = facts.batches_per_epoch or examples / size
  steps = math.ceil(budget.epochs * per_epoch)
  most = budget.steps if "tokenizer" in decisions.config["data"] else None
  steps = min(max(steps, budget.fewest), most or budget.short_steps)
  reason = f"{steps / per_epoch:.3g} passes through the training examples"
  return decisions.decide("total_steps", steps, reason)
