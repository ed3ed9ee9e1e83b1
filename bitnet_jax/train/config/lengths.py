"""Extended runs: their earlier lengths, recorded in ``config.json``.

Schedules depend on the length, so an extended run differs from a run that had
that length from the start. Its config lists the earlier lengths, and so its
identity and its record do, too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from bitnet_jax.train.optimizer.optim import (
  OptimOptions,
  learning_rate_schedule,
)

# A list of groups with the keys "total_steps" and "until", the last step with
# that length; only in configs of extended runs.
KEY = "earlier_lengths"


def continued(
  config: Mapping[str, Any], old: Mapping[str, Any], step: int
) -> dict[str, Any]:
  """Returns the config of a run that resumes at ``step``.

  Args:
    config: resolved, as asked for now.
    old: as recorded, with the earlier lengths.
    step: the newest checkpoint.
  """
  lengths = [*_earlier(old)]
  if old["total_steps"] != config["total_steps"]:
    lengths.append({"total_steps": old["total_steps"], "until": step})
  return _with(config, lengths)


def until(config: Mapping[str, Any], step: int) -> dict[str, Any]:
  """Returns the config of a run that resumes at an earlier step than known."""
  lengths = [
    {**length, "until": min(length["until"], step)}
    for length in _earlier(config)
  ]
  return _with(config, lengths)


def without(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config without earlier lengths."""
  return {name: value for name, value in config.items() if name != KEY}


def warn_of_restart(
  options: OptimOptions, config: Mapping[str, Any], step: int
) -> None:
  """Warns if the learning rate jumps up where a longer run resumes."""
  lengths = _earlier(config)
  if not lengths or lengths[-1]["until"] != step:
    return
  before, after = lengths[-1]["total_steps"], config["total_steps"]
  old, new = (learning_rate_schedule(options, n) for n in (before, after))
  rates = np.array([old(step - 1), old(step), new(step)], np.float32)
  last, planned, rate = rates.tolist()
  # In a warm-up it rises anyway.
  if rate > max(last, planned) * (1 + 1e-6):
    logging.warning(
      "total_steps was %d and is %d now: at step %d the learning rate jumps"
      " from %.3g to %.3g (optim.schedule is %r), as it would not in a run of"
      " %d steps from the start; %s in config.json and result.json says so",
      before,
      after,
      step,
      last,
      rate,
      options.schedule,
      after,
      KEY,
    )


def _earlier(config):
  return config[KEY] if KEY in config else []


def _with(config, lengths):
  """Returns the config with those lengths that any step was made with."""
  kept, begun = [], 0
  for length in lengths:
    if length["until"] > begun:
      kept.append(length)
      begun = length["until"]
  return without(config) | ({KEY: kept} if kept else {})
